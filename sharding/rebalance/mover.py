"""
A mover: takes one move after the other in hand, and does step after step until it is through or has to wait.

Any number of them may be at work, in threads, processes and on machines. Nothing that they keep in mind matters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS

from sharding.errors import (
    CopyDamaged,
    CopyRefused,
    MoveConflict,
    RebalanceError,
    Superseded,
    TablesDiffer,
    VerificationFailed,
)
from sharding.rebalance import (
    claiming,
    decided_actions,
    decided_steps,
    failing,
    fences,
    stored_moves,
    undecided_actions,
)
from sharding.rebalance.attempt import CLOSED, Attempt
from sharding.rebalance.decided_steps import Own
from sharding.rebalance.move_state import next_step
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.purging import vacuum
from sharding.rebalance.seeing import see
from sharding.rebalance.sessions import Session, Sessions, open_session
from sharding.rebalance.steps import Claim, Side, Step
from sharding.rebalance.stored_moves import Interrupted, StoredMove
from sharding.rebalance.tables import Table, sharded_tables
from sharding.rebalance.undecided_steps import Decide, Fence

logger = logging.getLogger("sharding")

_ACTIONS: dict[type[Step], Callable[[Attempt, Step], None]] = {**undecided_actions.ACTIONS, **decided_actions.ACTIONS}
#: Seconds until a move is looked at again whose window is over, while old statements are running.
LOOK_AGAIN = 1.0
#: What is wrong with the rows, so that the move is given up.
HOPELESS = (CopyRefused, CopyDamaged, VerificationFailed, TablesDiffer)


@dataclass(slots=True)
class Mover:
    """One worker; ``run()`` it in a thread of its own."""

    options: Options = field(default_factory=Options)
    #: Whose moves it does; None for all.
    plan: Any = None
    #: Told of every step that was done: the move as it was before, and the step.
    heard: Callable[[StoredMove, Step], None] = lambda move, step: None
    _opened: ExitStack = field(default_factory=ExitStack)
    _sessions: dict[str, Session] = field(default_factory=dict)
    _control: Session | None = None
    _tables: dict[str, tuple[Table, ...]] = field(default_factory=dict)
    #: Shards where rows were deleted, whose space is given back in the end.
    _purged: set[str] = field(default_factory=set)

    def run(self) -> int:
        """
        Do what is due until nothing is, and return how many moves were taken in hand.

        Raises:
            RebalanceError: a migration is running.
            psycopg.OperationalError: the control database does not answer.
        """
        taken = 0
        self._open_control()
        try:
            claiming.keep_migrations_away(self._need_control())
            while self._one():
                taken += 1
            self._vacuum()
        finally:
            self._close()
        return taken

    def _one(self) -> bool:
        if self.options.stop():
            return False
        move = claiming.take(self._need_control(), claiming.worker_name(), self.options, plan=self.plan)
        if move is None:
            return False
        try:
            self._carry(move)
        finally:
            claiming.release(self._need_control(), self._sessions.values(), move)
        return True

    def _carry(self, move: StoredMove) -> None:
        """Bring a move as far as it goes now; whatever happens to it is written into its row."""
        attempt: Attempt | None = None
        try:
            attempt = self._attempt(move)
            self._steps(attempt)
        except Interrupted:
            self._open_again(move, attempt)
        except Superseded as error:
            logger.info("%s", error)
        except MoveConflict as error:
            # Whatever is done now may be wrong.
            failing.retry_later(self._need_control(), move, error)
        except HOPELESS as error:
            self._open_again(move, attempt)
            failing.give_up(self._need_control(), move, error)
        except (psycopg.Error, RebalanceError, OSError) as error:
            self._open_again(move, attempt)
            self._retry(attempt.move if attempt is not None else move, error)

    def _open_again(self, move: StoredMove, attempt: Attempt | None) -> None:
        # Without an attempt, one of the shards does not answer: it may be the other one.
        source = self._sessions.get(move.source)
        if source is not None:
            known, deciding = (attempt.move, attempt.deciding) if attempt is not None else (move, False)
            failing.open_again(self._need_control(), source, known, deciding=deciding)

    def _retry(self, move: StoredMove, error: Exception) -> None:
        """Write down what has failed; sessions are not used again of which nobody knows how they are."""
        if isinstance(error, psycopg.OperationalError | OSError):
            for alias in list(self._sessions):
                self._sessions.pop(alias).connection.close()
        failing.retry_later(self._need_control(), move, error)

    def _attempt(self, move: StoredMove) -> Attempt:
        control = self._need_control()
        claiming.adopt(control, control, move)
        # The source first, which can be opened again without the target.
        sessions = Sessions(self._session(move, move.source), self._session(move, move.target))
        if move.source not in self._tables:
            # They stay as they are: no migration begins while movers are at work.
            self._tables[move.source] = sharded_tables(sessions.source)
        return Attempt(control, sessions, move, self._tables[move.source], self.options)

    def _steps(self, attempt: Attempt) -> None:
        step: Step | None = None
        begun_in = attempt.move.phase
        while True:
            step = _at_once(step, attempt) or next_step(see(attempt))
            if step is None:
                if begun_in is attempt.move.phase is Phase.WINDOW:
                    # It was due, but for what others are reading.
                    stored_moves.rest(attempt.control, attempt.move, LOOK_AGAIN)
                return
            before = attempt.move
            if self.options.stop() and attempt.move.phase not in CLOSED:
                return
            if isinstance(step, Claim):
                side = attempt.sessions.source if step.side is Side.SOURCE else attempt.sessions.target
                fences.claim(side, attempt.move.bucket, attempt.move.generation)
            else:
                _ACTIONS[type(step)](attempt, step)
            if isinstance(step, decided_steps.Purge):
                self._purged.add(attempt.move.source)
            self.heard(before, step)
            if isinstance(step, decided_steps.Reverse):
                # Another row stands for what is to be done now.
                return

    def _session(self, move: StoredMove, alias: str) -> Session:
        found = self._sessions.get(alias)
        if found is None or found.connection.closed:
            found = self._opened.enter_context(open_session(alias, bucket=move.bucket, generation=move.generation))
            self._sessions[alias] = found
        claiming.adopt(self._need_control(), found, move)
        return found

    def _open_control(self) -> None:
        self._control = self._opened.enter_context(open_session(DEFAULT_DB_ALIAS))

    def _need_control(self) -> Session:
        assert self._control is not None
        return self._control

    def _vacuum(self) -> None:
        for alias in sorted(self._purged):
            session = self._sessions.get(alias)
            if session is not None and not session.connection.closed:
                vacuum(session, self._tables[alias])

    def _close(self) -> None:
        with suppress(psycopg.Error):
            self._opened.close()
        self._sessions.clear()
        self._control = None


def _at_once(step: Step | None, attempt: Attempt) -> Step | None:
    """
    Return what follows a step for sure, so that nobody has to wait until the mover has looked; None for any other.

    Each step compares what it changes, and so finds out that another attempt has taken over.
    """
    phase = attempt.move.phase
    if isinstance(step, Fence) and phase is Phase.FINISHING and attempt.move.wanted is Wanted.GO:
        return Decide()
    return Own() if isinstance(step, Decide) and phase is Phase.DECIDED else None

"""
A mover: takes one round of moves after the other in hand, and does step after step until it is through or has to wait.

Any number of them may be at work, in threads, processes and on machines. Nothing that they keep in mind matters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

import psycopg
from django.db import DEFAULT_DB_ALIAS

from sharding.errors import (
    CopyDamaged,
    CopyRefused,
    ShardingError,
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
    undecided_actions,
    upkeep,
)
from sharding.rebalance.attempt import CLOSED, Attempt, Attempts, Round, moves_of
from sharding.rebalance.choosing import at_once, choose
from sharding.rebalance.options import Options
from sharding.rebalance.sessions import Session, Sessions, open_session
from sharding.rebalance.steps import Claim, Side, Step
from sharding.rebalance.stored_moves import Interrupted, StoredMove
from sharding.rebalance.tables import Table, sharded_tables

logger = logging.getLogger("sharding")

_ACTIONS: dict[type[Step], Callable[[Round, Attempts, Step], None]] = {
    **undecided_actions.ACTIONS,
    **decided_actions.ACTIONS,
}
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
    #: Moves whose round has failed, so that each goes on by itself.
    _alone: set[int] = field(default_factory=set)

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
            while taken_now := self._some():
                taken += taken_now
            self._vacuum()
        finally:
            self._close()
        return taken

    def _some(self) -> int:
        """Bring a round of moves as far as it goes now, and return of how many it was."""
        if self.options.stop():
            return 0
        moves = claiming.take(
            self._need_control(), claiming.worker_name(), self.options, plan=self.plan, alone=self._alone
        )
        if not moves:
            return 0
        try:
            self._carry(moves)
        finally:
            claiming.release(self._need_control(), self._sessions.values(), moves)
        return len(moves)

    def _carry(self, moves: list[StoredMove]) -> None:
        """Take moves through their steps; whatever happens to one that is alone is written into its row."""
        work: Round | None = None
        try:
            work = self._round(moves)
            self._steps(work)
        except Interrupted:
            self._open_again(moves, work)
        except (psycopg.Error, ShardingError, OSError) as error:
            if len(moves) > 1:
                self._fall_apart(moves, work, error)
            else:
                self._failed(moves[0], work, error)

    def _failed(self, move: StoredMove, work: Round | None, error: Exception) -> None:
        if isinstance(error, Superseded):
            logger.info("%s", error)
            return
        self._open_again([move], work)
        known = work.attempts[0].move if work is not None else move
        if isinstance(error, HOPELESS) and failing.can_give_up(known):
            failing.give_up(self._need_control(), known, error)
        else:
            self._forget_sessions(error)
            failing.retry_later(self._need_control(), known, error)

    def _fall_apart(self, moves: Sequence[StoredMove], work: Round | None, error: Exception) -> None:
        """Let each move of a round that has failed go on by itself: it may be one of them that lets it fail."""
        logger.info(
            "The moves of buckets %s go on one by one: %s", [move.bucket for move in moves], failing.said(error)
        )
        self._open_again(moves, work)
        self._forget_sessions(error)
        self._alone.update(move.id for move in moves)

    def _open_again(self, moves: Sequence[StoredMove], work: Round | None) -> None:
        # Without a round, one of the shards does not answer: it may be the other one.
        source = self._sessions.get(moves[0].source)
        if source is not None:
            known, deciding = (moves_of(work.at_work), work.deciding) if work is not None else (moves, False)
            for move in known:
                failing.open_again(self._need_control(), source, move, deciding=deciding)

    def _forget_sessions(self, error: Exception) -> None:
        """Do not use sessions again of which nobody knows how they are."""
        if isinstance(error, psycopg.OperationalError | OSError):
            for alias in list(self._sessions):
                self._sessions.pop(alias).connection.close()

    def _round(self, moves: Sequence[StoredMove]) -> Round:
        control, source, target = self._need_control(), moves[0].source, moves[0].target
        claiming.adopt(control, control, moves)
        # The source first, which can be opened again without the target.
        sessions = Sessions(self._session(moves, source), self._session(moves, target))
        if source not in self._tables:
            # They stay as they are: no migration begins while movers are at work.
            self._tables[source] = sharded_tables(sessions.source)
        attempts = [Attempt(move, self._tables[source]) for move in moves]
        return Round(control, sessions, self.options, attempts)

    def _steps(self, work: Round) -> None:
        chosen = choose(work)
        while chosen is not None:
            step, attempts = chosen
            if self.options.stop() and attempts[0].move.phase not in CLOSED:
                return
            self._take(work, attempts, step)
            following = at_once(step, attempts)
            chosen = (following, attempts) if following is not None else choose(work)

    def _take(self, work: Round, attempts: Attempts, step: Step) -> None:
        before = moves_of(attempts)
        if isinstance(step, Claim):
            side = work.sessions.source if step.side is Side.SOURCE else work.sessions.target
            for move in before:
                fences.claim(side, move.bucket, move.generation)
        else:
            _ACTIONS[type(step)](work, attempts, step)
        if isinstance(step, decided_steps.Purge):
            self._purged.add(work.sessions.source.alias)
        for attempt, move in zip(attempts, before, strict=True):
            self.heard(move, step)
            # After it, another row stands for what is to be done.
            attempt.rests = isinstance(step, decided_steps.Reverse)

    def _session(self, moves: Sequence[StoredMove], alias: str) -> Session:
        found = self._sessions.get(alias)
        if found is None or found.connection.closed:
            buckets = [move.bucket for move in moves]
            found = self._opened.enter_context(open_session(alias, buckets=buckets, generation=moves[0].generation))
            self._sessions[alias] = found
        claiming.adopt(self._need_control(), found, moves)
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
                try:
                    upkeep.vacuum(session, [table.name for table in self._tables[alias]], self._go_on)
                except (psycopg.Error, Interrupted) as error:
                    logger.info(
                        "The space of what was moved is left to autovacuum on %s: %s", alias, failing.said(error)
                    )

    def _go_on(self) -> None:
        if self.options.stop():
            raise Interrupted("The mover stops.")

    def _close(self) -> None:
        with suppress(psycopg.Error):
            self._opened.close()
        self._sessions.clear()
        self._control = None

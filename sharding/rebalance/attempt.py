"""
Moves in the hands of one mover: its sessions, what it is told, and the little that it keeps in mind.

What it keeps in mind only saves time. A mover that begins without it does the same, or opens the source again.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from sharding.rebalance import stored_moves
from sharding.rebalance.carrier import ByNotes, Carrier
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.options import Options
from sharding.rebalance.phases import UNDECIDED, Phase, Wanted
from sharding.rebalance.sessions import Session, Sessions
from sharding.rebalance.steps import Side, Step
from sharding.rebalance.stored_moves import Interrupted, Sign, StoredMove
from sharding.rebalance.tables import Table

#: Seconds between two signs of life.
SIGN_EVERY = 0.5
#: Phases in which nobody can write the bucket.
CLOSED = frozenset({Phase.FENCING, Phase.FINISHING, Phase.DECIDED, Phase.OWNING})


@dataclass(slots=True)
class Attempt:
    """One attempt at one move."""

    #: As it was when the step was chosen.
    move: StoredMove
    tables: tuple[Table, ...]
    #: The phase in which it was taken in hand.
    begun_in: Phase = field(init=False)
    #: Keys of the rows that were written since this attempt has compared all of them, by table; None before it has.
    written: dict[str, set[str]] | None = None
    #: The tables whose rows were too many then to be counted while nobody can write them.
    large: frozenset[str] = frozenset()
    #: When the source was closed, by this process's clock.
    closed: float | None = None
    #: Seconds for which it was, once the bucket is open on the other side.
    gap: float | None = None
    #: Rows that were copied since the last sign of life, and the notes that were left when it was last looked.
    copied: int = 0
    noted: int | None = None
    #: Whether there is nothing more to be done for now.
    rests: bool = False

    def __post_init__(self) -> None:
        self.begun_in = self.move.phase

    @property
    def facts(self) -> MoveFacts:
        return MoveFacts(self.move.bucket, self.move.generation, self.tables)


#: Those of a round that take a step together: all in one phase, and after a decision all of one epoch.
Attempts = Sequence[Attempt]


@dataclass(slots=True)
class Round:
    """Moves from one shard to another that a mover takes through the steps together, or a single one."""

    control: Session
    sessions: Sessions
    options: Options
    attempts: Attempts
    carrier: Carrier = field(default_factory=ByNotes)
    #: Whether the decision may have been made: its commit was sent.
    deciding: bool = False
    #: When the standbys of a shard were last seen to be close enough, by alias.
    looked: dict[str, float] = field(default_factory=dict)
    signed: float = field(default_factory=time.monotonic)

    @property
    def at_work(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if not attempt.rests]

    def at(self, step: Step) -> Session:
        """Return the session of the shard whose fence a step changes."""
        return self.sessions.source if step.at is Side.SOURCE else self.sessions.target

    def record(self, attempts: Attempts, step: Step, assigned: str = "", *values: object) -> None:
        """Let moves be in the phase to which a step leads."""
        assert step.leads_to is not None
        stored_moves.record(self.control, moves_of(attempts), step.leads_to, assigned, values)
        for attempt in attempts:
            attempt.move = replace(attempt.move, phase=step.leads_to)

    def look_up(self) -> None:
        """
        Give a sign of life from time to time, and find out whether to go on.

        Raises:
            Interrupted: the operator wants something else of a move by now, or the process is to end.
            Superseded: another attempt has taken over.
        """
        if self.options.stop():
            raise Interrupted(f"The mover stops before the move of {buckets_named(self.attempts)} is through.")
        if time.monotonic() - self.signed < SIGN_EVERY:
            return
        wanted = self.give_signs()
        for attempt in self.at_work:
            move, its_wish = attempt.move, wanted.get(attempt.move.id)
            if its_wish is None:
                raise stored_moves.superseded(self.control.alias, [move])
            if its_wish != move.wanted and move.phase in {*UNDECIDED, Phase.PURGING} and its_wish is not Wanted.GO:
                raise Interrupted(f"Bucket {move.bucket} is to {its_wish.value}.")

    def give_signs(self) -> dict[int, Wanted]:
        """Write down how far all moves have come, also those that wait for others; return what is wanted of each."""
        signs = [Sign(attempt.move, attempt.copied, attempt.noted) for attempt in self.attempts]
        wanted = stored_moves.give_signs(self.control, signs)
        for attempt in self.attempts:
            attempt.copied = 0
        self.signed = time.monotonic()
        return wanted


def moves_of(attempts: Attempts) -> list[StoredMove]:
    return [attempt.move for attempt in attempts]


def facts_of(attempts: Attempts) -> list[MoveFacts]:
    return [attempt.facts for attempt in attempts]


def buckets_of(attempts: Attempts) -> list[int]:
    return [attempt.move.bucket for attempt in attempts]


def buckets_named(attempts: Attempts) -> str:
    """Return the buckets of some moves as a sentence has them."""
    *others, last = (str(bucket) for bucket in buckets_of(attempts))
    return f"bucket {last}" if not others else f"one of the buckets {', '.join(others)} and {last}"

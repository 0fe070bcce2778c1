"""
One attempt at a move: its sessions, what it is told, and the little that it keeps in mind.

What it keeps in mind only saves time. An attempt that begins without it does the same, or opens the source again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field, replace

from sharding.rebalance import stored_moves
from sharding.rebalance.carrier import ByNotes, Carrier
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.options import Options
from sharding.rebalance.phases import UNDECIDED, Phase, Wanted
from sharding.rebalance.sessions import Session, Sessions
from sharding.rebalance.steps import Side, Step
from sharding.rebalance.stored_moves import Interrupted, StoredMove
from sharding.rebalance.tables import Table

#: Seconds between two signs of life.
SIGN_EVERY = 0.5
#: Phases in which nobody can write the bucket.
CLOSED = frozenset({Phase.FENCING, Phase.FINISHING, Phase.DECIDED, Phase.OWNING})


@dataclass(slots=True)
class Attempt:
    """A move in the hands of one mover."""

    control: Session
    sessions: Sessions
    #: As it was when the step was chosen.
    move: StoredMove
    tables: tuple[Table, ...]
    options: Options
    carrier: Carrier = field(default_factory=ByNotes)
    #: Keys of the rows that were written since this attempt has compared all of them, by table; None before it has.
    written: dict[str, set[str]] | None = None
    #: When the source was closed, by this process's clock.
    closed: float | None = None
    #: Whether the decision may have been made: its commit was sent.
    deciding: bool = False
    #: Seconds for which it was, once the bucket is open on the other side.
    gap: float | None = None
    copied: int = 0
    noted: int | None = None
    #: When the standbys of a shard were last seen to be close enough, by alias.
    looked: dict[str, float] = field(default_factory=dict)
    signed: float = field(default_factory=time.monotonic)

    @property
    def facts(self) -> MoveFacts:
        return MoveFacts(self.move.bucket, self.move.generation, self.tables)

    def at(self, step: Step) -> Session:
        """Return the session of the shard whose fence a step changes."""
        return self.sessions.source if step.at is Side.SOURCE else self.sessions.target

    def record(self, step: Step, assigned: str = "", *values: object) -> None:
        """Let the move be in the phase to which a step leads."""
        assert step.leads_to is not None
        stored_moves.record(self.control, self.move, step.leads_to, assigned, values)
        self.move = replace(self.move, phase=step.leads_to)

    def look_up(self) -> None:
        """
        Give a sign of life from time to time, and find out whether to go on.

        Raises:
            Interrupted: the operator wants something else by now, or the process is to end.
            Superseded: another attempt has taken over.
        """
        if self.options.stop():
            raise Interrupted(f"The mover stops before the move of bucket {self.move.bucket} is through.")
        if time.monotonic() - self.signed < SIGN_EVERY:
            return
        wanted = stored_moves.give_sign(self.control, self.move, self.copied, self.noted)
        self.copied, self.signed = 0, time.monotonic()
        if wanted != self.move.wanted and self.move.phase in {*UNDECIDED, Phase.PURGING} and wanted is not Wanted.GO:
            raise Interrupted(f"Bucket {self.move.bucket} is to {wanted.value}.")

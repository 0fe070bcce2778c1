"""
How moves stand, as plain values: for people who watch, and for programs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from statistics import quantiles
from typing import Any
from uuid import UUID

from sharding.rebalance.phases import FINAL, UNDECIDED, Phase
from sharding.rebalance.sessions import Session

_MOVES = """
SELECT m.id, m.plan, m.bucket, m.source, m.target, m.phase, m.wanted, m.generation, m.rows, m.bytes, m.copied,
       m.noted, m.planned, m.begun, m.changed, m.announced, m.window_ends, m.gap, m.error, m.failures, m.retry_at,
       a.worker, now()
FROM sharding_move AS m LEFT JOIN sharding_attempt AS a ON a.id = m.generation
WHERE %s::uuid IS NULL OR m.plan = %s::uuid ORDER BY m.id
"""
_LATEST = "SELECT plan FROM sharding_move ORDER BY phase IN ('done', 'aborted'), id DESC LIMIT 1"


@dataclass(frozen=True, slots=True)
class MoveStatus:
    """One move as its row says; times are datetimes, ``gap`` is in seconds."""

    id: int
    plan: UUID
    bucket: int
    source: str
    target: str
    phase: Phase
    wanted: str
    generation: int
    #: What the plan expects.
    rows: int
    bytes: int
    #: Rows that have gone over, and notes that were left when it was last looked.
    copied: int
    noted: int
    planned: datetime
    begun: datetime | None
    changed: datetime
    announced: datetime | None
    window_ends: datetime | None
    gap: float | None
    error: str
    failures: int
    retry_at: datetime | None
    worker: str | None
    now: datetime

    @property
    def stage(self) -> str:
        """Return in one word where the move stands: for a table of many."""
        if self.phase is Phase.PLANNED:
            return "planned"
        if self.phase in FINAL:
            return self.phase.value
        if self.phase in (Phase.WINDOW, Phase.PURGING):
            return self.phase.value
        return "moving" if self.phase in UNDECIDED or self.phase is not Phase.ABORTING else "aborting"

    def as_json(self) -> dict[str, Any]:
        """Return plain values."""
        found = asdict(self) | {"plan": str(self.plan), "phase": self.phase.value, "stage": self.stage}
        return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in found.items()}


@dataclass(frozen=True, slots=True)
class Overview:
    """All moves of one plan, or of all."""

    moves: tuple[MoveStatus, ...]

    @property
    def stages(self) -> Counter[str]:
        """Return how many moves are at each stage."""
        return Counter(move.stage for move in self.moves)

    @property
    def under_way(self) -> tuple[MoveStatus, ...]:
        return tuple(move for move in self.moves if move.stage in ("moving", "aborting", "purging"))

    @property
    def failed(self) -> tuple[MoveStatus, ...]:
        """Return the moves with an error that stands: given up, or to be tried again."""
        # What has come further since keeps the error, and no failures.
        given_up = (Phase.ABORTING, Phase.ABORTED)
        return tuple(move for move in self.moves if move.error and (move.failures or move.phase in given_up))

    @property
    def is_over(self) -> bool:
        return all(move.phase in FINAL for move in self.moves)

    @property
    def switched(self) -> int:
        """Return how many buckets are the target's."""
        return sum(move.phase not in UNDECIDED and move.stage not in ("aborting", "aborted") for move in self.moves)

    @property
    def wanted(self) -> int:
        """Return how many buckets are to change hands, or have: those of moves that are given up are not."""
        return sum(move.stage not in ("aborting", "aborted") for move in self.moves)

    @property
    def gaps(self) -> dict[str, float]:
        """Return the median, the 99th percentile and the longest of the gaps, in seconds; empty before the first."""
        found = sorted(move.gap for move in self.moves if move.gap is not None)
        if not found:
            return {}
        cuts = quantiles(found, n=100, method="inclusive") if len(found) > 1 else found * 99
        return {"p50": cuts[49], "p99": cuts[98], "max": found[-1]}

    def as_json(self) -> dict[str, Any]:
        return {
            "moves": [move.as_json() for move in self.moves],
            "stages": dict(self.stages),
            "switched": self.switched,
            "gaps": self.gaps,
            "over": self.is_over,
        }


def overview(control: Session, plan: UUID | None = None) -> Overview:
    """Return the moves of a plan, or all there ever were."""
    rows: Sequence[Any] = control.connection.execute(_MOVES, [plan, plan]).fetchall()
    return Overview(tuple(MoveStatus(*(*row[:5], Phase(row[5]), *row[6:])) for row in rows))


def latest_plan(control: Session) -> UUID | None:
    """Return the plan that is under way, or else the last one; None if there never was one."""
    found = control.connection.execute(_LATEST).fetchone()
    return found[0] if found else None

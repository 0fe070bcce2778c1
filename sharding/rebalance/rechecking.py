"""
Compare the rows of moves again, at any time: those that are being copied, and those that can still be taken back.

Nothing is changed, and nothing taken in hand: the fences must be as the move's last attempt has left them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from typing import Any
from uuid import UUID

from sharding.bucket_states import BucketState
from sharding.errors import Superseded, VerificationFailed
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.phases import Phase
from sharding.rebalance.sessions import Session, Sessions, open_sessions
from sharding.rebalance.tables import sharded_tables
from sharding.rebalance.verifying import verify

#: In which rows are being copied, and a comparison means something.
_COPYING = frozenset({Phase.CATCHING_UP, Phase.VERIFYING, Phase.FENCING, Phase.FINISHING})

_MOVES = """
SELECT bucket, source, target, phase, generation, report, error FROM sharding_move
WHERE (%s::uuid IS NULL OR plan = %s::uuid) AND (%s::int[] = '{}' OR bucket = ANY(%s::int[])) ORDER BY id
"""


@dataclass(frozen=True, slots=True)
class Recheck:
    """What was found of one move."""

    bucket: int
    source: str
    target: str
    phase: str
    report: dict[str, Any]
    #: "now", or "before" for what was found when the bucket changed hands.
    when: str
    error: str = ""

    @property
    def sound(self) -> bool:
        return bool(self.report["sound"])

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"sound": self.sound}


def recheck(
    control: Session, plan: UUID | None, *, buckets: Collection[int] = (), stored: bool = False
) -> Iterator[Recheck]:
    """Yield what a comparison of each move's rows finds now, or found before where there are no two copies any more."""
    wanted = list(buckets)
    for row in control.connection.execute(_MOVES, [plan, plan, wanted, wanted]).fetchall():
        bucket, source, target, phase, generation, report, error = row
        found = None if stored else _now(bucket, source, target, Phase(phase), generation)
        if found is not None:
            yield Recheck(bucket, source, target, phase, found.as_json(), "now", "" if found.sound else str(found))
        elif report is not None:
            yield Recheck(bucket, source, target, phase, report, "before", error)


def _now(bucket: int, source: str, target: str, phase: Phase, generation: int) -> Any:
    if phase not in {*_COPYING, Phase.WINDOW}:
        return None
    getting = frozenset({BucketState.IMPORTING})
    if phase is Phase.WINDOW:
        # The owner has noted what it wrote since, and the former one has the rows as they were.
        source, target, getting = target, source, frozenset({BucketState.MOVED})
    with open_sessions(source, target, buckets=bucket, generation=generation) as sessions:
        return _verified(sessions, MoveFacts(bucket, generation, sharded_tables(sessions.source)), getting)


def _verified(sessions: Sessions, facts: MoveFacts, getting: frozenset[BucketState]) -> Any:
    try:
        return verify(sessions, facts, getting=getting)
    except VerificationFailed as error:
        return error.report
    except Superseded:
        # It has gone on at this moment.
        return None

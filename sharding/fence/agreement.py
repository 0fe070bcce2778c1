"""
Do the fence of a shard and the bucket map agree? They do at all times, but for buckets that are on their way.

A shard that was restored from a backup has the fence of that day: it would write buckets that have gone since, refuse
those that came, and have old rows of those that went and came back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db import connections

from sharding.bucket_states import SHOWING, BucketState
from sharding.fence.states import FenceRow

#: Moves in whose course a fence differs from the map; all others have nothing to do with a fence.
MOVES = """
SELECT bucket, source, target, phase FROM sharding_move
WHERE phase NOT IN ('planned', 'done', 'aborted') ORDER BY bucket
"""
OWNERS = "SELECT bucket, shard, epoch FROM sharding_bucket ORDER BY bucket"


class Kind(StrEnum):
    """How a fence and the map may disagree about a bucket that is not moving."""

    #: The fence shows the bucket, which is another shard's.
    FOREIGN = "foreign"
    #: The fence does not show the bucket, which is this shard's.
    MISSING = "missing"
    #: The bucket is this shard's again, and the fence is older than that.
    OUTDATED = "outdated"
    #: The fence has the bucket in the course of a move that is over.
    UNSETTLED = "unsettled"


@dataclass(frozen=True, slots=True)
class Owner:
    """The shard that has a bucket by the map, and since which epoch."""

    shard: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Moving:
    """A move that has begun and is not over."""

    bucket: int
    source: str
    target: str
    phase: str

    def __str__(self) -> str:
        return f"bucket {self.bucket} from {self.source} to {self.target} ({self.phase})"


@dataclass(frozen=True, slots=True)
class Stored:
    """What the control database says of all buckets."""

    owners: Mapping[int, Owner]
    moving: Mapping[int, Moving]


@dataclass(frozen=True, slots=True)
class Disagreement:
    """One bucket about which a fence and the map disagree."""

    bucket: int
    kind: Kind
    #: What the fence says; None for nothing.
    fence: FenceRow | None
    owner: Owner
    #: The move that may explain it.
    moving: Moving | None = None


def stored(cursor: Any) -> Stored:
    """Read what the control database says."""
    cursor.execute(OWNERS)
    owners = {bucket: Owner(shard, epoch) for bucket, shard, epoch in cursor.fetchall()}
    cursor.execute(MOVES)
    return Stored(owners, {row[0]: Moving(*row) for row in cursor.fetchall()})


def disagreements(alias: str, found: Mapping[int, FenceRow], control: Stored) -> Iterator[Disagreement]:
    """
    Yield the buckets about which the fence of a shard and the map disagree, ascending.

    Read the fence first: a move that ends meanwhile would look like a disagreement, and one that begins is told.
    """
    for bucket, owner in control.owners.items():
        row = found.get(bucket)
        kind = _kind(alias, row, owner)
        if kind is not None:
            yield Disagreement(bucket, kind, row, owner, control.moving.get(bucket))


def _kind(alias: str, row: FenceRow | None, owner: Owner) -> Kind | None:
    shows = row is not None and row.state in SHOWING
    if owner.shard != alias:
        # An owner that is not declared is another mistake, and nothing is to be hidden in favour of it.
        return Kind.FOREIGN if shows and owner.shard in connections else None
    if row is None or not shows:
        return Kind.MISSING
    if row.epoch < owner.epoch:
        return Kind.OUTDATED
    return None if row.state is BucketState.OWNED else Kind.UNSETTLED

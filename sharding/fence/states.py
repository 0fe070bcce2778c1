"""
The rows of a shard's fence: written for the buckets that the shard owns, read, and compared with the bucket map.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from sharding.bucket_states import SHOWING, BucketState, mark_of

_WRITE: Final = """
WITH given AS (
    SELECT bucket, mark FROM unnest(%s::smallint[], %s::bigint[]) AS each (bucket, mark)
), gone AS (
    DELETE FROM sharding_fence AS f WHERE NOT EXISTS (SELECT FROM given WHERE given.bucket = f.bucket)
)
INSERT INTO sharding_fence AS f (bucket, state, epoch, generation, forward, mark)
SELECT g.bucket, 'owned', %s, 0, '', g.mark FROM given AS g
WHERE NOT EXISTS (SELECT FROM sharding_fence AS o WHERE o.bucket = g.bucket AND o.state = 'owned')
ON CONFLICT (bucket) DO UPDATE SET state = 'owned', epoch = excluded.epoch, generation = 0, forward = ''
"""


@dataclass(frozen=True, slots=True)
class FenceRow:
    """What one bucket is on one database."""

    state: BucketState
    epoch: int
    generation: int
    forward: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Where a fence and the bucket map disagree."""

    #: Buckets of the shard, by the map, whose rows its fence does not show.
    missing: tuple[int, ...]
    #: Buckets of others, by the map, whose rows its fence shows.
    foreign: tuple[int, ...]

    def __bool__(self) -> bool:
        return bool(self.missing or self.foreign)


def write(connection: Any, buckets: Collection[int], epoch: int) -> None:
    """Let a database own just these buckets since ``epoch``; what it owns already, it owns since it did."""
    owned = sorted(buckets)
    with connection.cursor() as cursor:
        cursor.execute(_WRITE, [owned, [_mark(bucket) for bucket in owned], epoch])


def states(connection: Any) -> dict[int, FenceRow]:
    """Return the rows of a database's fence, by bucket."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT bucket, state, epoch, generation, forward FROM sharding_fence ORDER BY bucket")
        return {bucket: FenceRow(BucketState(state), *facts) for bucket, state, *facts in cursor.fetchall()}


def compare(found: Mapping[int, FenceRow], owned: Iterable[int]) -> Difference:
    """Return the difference between a fence and the buckets that the map gives to its shard."""
    expected = set(owned)
    shown = {bucket for bucket, row in found.items() if row.state in SHOWING}
    return Difference(tuple(sorted(expected - shown)), tuple(sorted(shown - expected)))


_mark = cache(mark_of)

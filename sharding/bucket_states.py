"""
What a bucket may be on one shard; the shard's fence has one row for each bucket that it has or had.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from functools import cache

import mmh3

#: The table of the states, on every database of the cluster.
FENCE = "sharding_fence"


class BucketState(StrEnum):
    """State of one bucket on one shard; a bucket without a row in the fence is none of the shard's business."""

    #: The shard has the bucket: its rows are read and written here.
    OWNED = "owned"
    #: As owned; what is written is noted, too, for the shard to which the bucket is being copied.
    CAPTURING = "capturing"
    #: Its rows are read here still, and nobody writes them: the bucket is about to be another shard's.
    FENCED = "fenced"
    #: It is another shard's, of which this one keeps the rows as they were when it went.
    MOVED = "moved"
    #: It is being copied to this shard.
    IMPORTING = "importing"


#: States in which rows of a bucket are to be seen; of each bucket on one shard, but for the instants of a switch.
SHOWING = frozenset({BucketState.OWNED, BucketState.CAPTURING, BucketState.FENCED})
#: States in which a shard has rows of a bucket that are not to be seen.
HIDING = frozenset({BucketState.IMPORTING, BucketState.MOVED})
#: States in which rows of a bucket may be written.
WRITABLE = frozenset({BucketState.OWNED, BucketState.CAPTURING})

#: So that the sum of all marks is far below what a bigint holds.
_MARK_BITS = 50


@cache
def mark_of(bucket: int) -> int:
    """Return a number that stands for a bucket: by the sum of their marks, two sets of buckets are told apart."""
    return mmh3.hash64(f"bucket {bucket}", signed=False)[0] >> (64 - _MARK_BITS)


def shown_by(buckets: Iterable[int]) -> int:
    """Return the sum of the buckets' marks, which ``sharding_identity.shown`` is where just these are to be seen."""
    return sum(map(mark_of, buckets))

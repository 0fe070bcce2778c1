"""
What a bucket may be on one shard; the shard's fence has one row for each bucket that it has or had.
"""

from __future__ import annotations

from enum import StrEnum

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


#: States in which a shard has rows of a bucket that are not to be seen.
HIDING = frozenset({BucketState.IMPORTING, BucketState.MOVED})
#: States in which rows of a bucket may be written.
WRITABLE = frozenset({BucketState.OWNED, BucketState.CAPTURING})

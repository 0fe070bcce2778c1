"""What a placement is asked for, checked once, so that every strategy works on valid input."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sharding.bucket_map import BucketMap, complete_weights
from sharding.errors import UnknownShard
from sharding.hashing import check_buckets


@dataclass(frozen=True, slots=True)
class PlacementRequest:
    """
    The shards to place buckets on, in their declared order, and what the answer must respect.

    After construction ``weights`` names every shard. ``current`` is the map to start from, or None; its owners need not
    be among ``shards``: those that are not shall be emptied.

    Raises:
        UnknownShard: A weight or a pin names an alias that is not among ``shards``.
        ValueError: There is no shard, one is named twice, a weight is not positive, a bucket does not exist, or the
            number of buckets is impossible or not that of ``current``.
    """

    shards: Sequence[str]
    buckets: int
    weights: Mapping[str, float] = field(default_factory=dict)
    current: BucketMap | None = None
    pins: Mapping[int, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._check_shards()
        self._check_buckets()
        self._check_aliases()
        object.__setattr__(self, "weights", complete_weights(self.shards, self.weights))

    def _check_shards(self) -> None:
        if isinstance(self.shards, str):
            raise ValueError(f"The shards are a list of aliases, not the string {self.shards!r}.")
        if not self.shards:
            raise ValueError("A placement needs at least one shard. Declare one in SHARDING['SHARDS'].")
        for alias, times in Counter(self.shards).items():
            if times > 1:
                raise ValueError(f"The shard {alias!r} is declared {times} times. Declare it once.")

    def _check_buckets(self) -> None:
        check_buckets(self.buckets)
        if self.current is not None and self.current.buckets != self.buckets:
            raise ValueError(
                f"The current map has {self.current.buckets} buckets, and {self.buckets} are asked for. "
                "The number of buckets of a cluster never changes."
            )
        for bucket in self.pins:
            if not 0 <= bucket < self.buckets:
                raise ValueError(
                    f"Bucket {bucket!r} is pinned but does not exist: "
                    f"this cluster has the buckets 0 to {self.buckets - 1}."
                )

    def _check_aliases(self) -> None:
        declared = f"which is none of the declared shards: {', '.join(self.shards)}"
        for alias in self.weights:
            if alias not in self.shards:
                raise UnknownShard(
                    f"A weight is given to {alias!r}, {declared}. Declare the shard or remove the weight.", alias=alias
                )
        for bucket, alias in self.pins.items():
            if alias not in self.shards:
                raise UnknownShard(
                    f"Bucket {bucket} is pinned to {alias!r}, {declared}. Declare the shard or remove the pin.",
                    alias=alias,
                )

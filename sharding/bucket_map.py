"""
The bucket map: which shard owns which bucket, at one epoch.

It is a value: a change makes a new map with the next epoch. Storing it is done elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from math import isfinite, sqrt

from sharding.hashing import check_buckets


@dataclass(frozen=True, slots=True)
class Imbalance:
    """
    How far a map is from giving each shard its fair share of the buckets, which is proportional to its weight.

    ``sd`` is the standard deviation of the shards' buckets, as a part of the fair share; ``max_over_mean`` is what the
    fullest shard holds, as a multiple of its fair share. A perfect map has 0.0 and 1.0.

    >>> print(Imbalance(0.0012, 1.001))
    sd 0.12 %, max/mean 1.001
    """

    sd: float
    max_over_mean: float

    def __str__(self) -> str:
        return f"sd {self.sd * 100:.2f} %, max/mean {self.max_over_mean:.3f}"


@dataclass(frozen=True, slots=True, repr=False)
class BucketMap:
    """
    The owner of every bucket at one epoch: ``owners[bucket]`` is the alias of a shard.

    >>> before = BucketMap.whole("default", 4)
    >>> after = before.moved({1: "shard_a", 3: "shard_a"})
    >>> after
    <BucketMap epoch 1: default 2, shard_a 2>
    >>> after.owner(3), after.buckets_of("default")
    ('shard_a', (0, 2))

    Raises:
        ValueError: The epoch is negative, the number of buckets impossible, or an owner not an alias.
    """

    epoch: int
    owners: tuple[str, ...]
    # alias -> its buckets in ascending order; the aliases are sorted.
    _held: dict[str, tuple[int, ...]] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        check_buckets(len(self.owners))
        if self.epoch < 0:
            raise ValueError(f"The epoch of a bucket map is 0 or more, not {self.epoch!r}.")
        held: dict[str, list[int]] = {}
        for bucket, alias in enumerate(self.owners):
            if not alias:
                raise ValueError(f"The owner of bucket {bucket} is the alias of a shard, not {alias!r}.")
            held.setdefault(alias, []).append(bucket)
        object.__setattr__(self, "_held", {alias: tuple(held[alias]) for alias in sorted(held)})

    def __repr__(self) -> str:
        shares = ", ".join(f"{alias} {count}" for alias, count in self.counts().items())
        return f"<BucketMap epoch {self.epoch}: {shares}>"

    @classmethod
    def whole(cls, alias: str, buckets: int, epoch: int = 0) -> BucketMap:
        """Return the map of a cluster of one: ``alias`` owns every bucket."""
        check_buckets(buckets)
        return cls(epoch, (alias,) * buckets)

    @property
    def buckets(self) -> int:
        """The number of buckets."""
        return len(self.owners)

    @property
    def aliases(self) -> tuple[str, ...]:
        """The shards that own a bucket, sorted."""
        return tuple(self._held)

    def owner(self, bucket: int) -> str:
        """
        Return the shard that owns ``bucket``.

        Raises:
            ValueError: The map has no such bucket.
        """
        # Without the comparison -1 would be the owner of the last bucket.
        if bucket < 0 or bucket >= len(self.owners):
            raise ValueError(f"There is no bucket {bucket}: this cluster has the buckets 0 to {len(self.owners) - 1}.")
        return self.owners[bucket]

    def owners_of(self, buckets: Iterable[int]) -> tuple[str, ...]:
        """
        Return the shards that own at least one of ``buckets``, sorted.

        Raises:
            ValueError: The map has no such bucket.
        """
        return tuple(sorted({self.owner(bucket) for bucket in buckets}))

    def buckets_of(self, alias: str) -> tuple[int, ...]:
        """Return the buckets of one shard in ascending order; none if it owns none."""
        return self._held.get(alias, ())

    def counts(self) -> dict[str, int]:
        """Return how many buckets each owner has, sorted by alias."""
        return {alias: len(buckets) for alias, buckets in self._held.items()}

    def moved(self, changes: Mapping[int, str]) -> BucketMap:
        """
        Return the map of the next epoch, in which the buckets in ``changes`` have new owners.

        Raises:
            ValueError: The map has no such bucket.
        """
        owners = list(self.owners)
        for bucket, alias in changes.items():
            self.owner(bucket)
            owners[bucket] = alias
        return BucketMap(self.epoch + 1, tuple(owners))

    def corrected(self, bucket: int, alias: str, epoch: int) -> BucketMap:
        """
        Return the map in which a bucket has the owner that it has since an epoch; what else has changed is unknown.

        Raises:
            ValueError: The map has no such bucket.
        """
        self.owner(bucket)
        return BucketMap(max(self.epoch, epoch), (*self.owners[:bucket], alias, *self.owners[bucket + 1 :]))

    def imbalance(self, weights: Mapping[str, float] | None = None) -> Imbalance:
        """
        Return how uneven this map is over its owners and the shards in ``weights``. A shard without a weight has 1.

        Name every shard in ``weights`` to count those that own nothing.

        Raises:
            ValueError: A weight is not a positive number.
        """
        shares = complete_weights({**self._held, **(weights or {})}, weights)
        total = sum(shares.values())
        variance, fullest = 0.0, 0.0
        for alias, weight in shares.items():
            share = weight / total
            ratio = len(self.buckets_of(alias)) / (self.buckets * share)
            variance += share * (ratio - 1) ** 2
            fullest = max(fullest, ratio)
        return Imbalance(sd=sqrt(variance), max_over_mean=fullest)


def complete_weights(shards: Iterable[str], weights: Mapping[str, float] | None) -> dict[str, float]:
    """
    Return the weight of every one of ``shards``, in their order: 1 unless ``weights`` says otherwise.

    Raises:
        ValueError: A weight is not a positive number.
    """
    complete = {alias: (weights or {}).get(alias, 1.0) for alias in shards}
    for alias, weight in complete.items():
        if not isfinite(weight) or weight <= 0:
            raise ValueError(
                f"The weight of {alias!r} is a positive number, not {weight!r}. To empty a shard, remove it from "
                f"SHARDS."
            )
    return complete

"""
How the shards stand after some moves of a plan: what each has, what it may receive, and how far from balanced they are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection
from dataclasses import dataclass
from fractions import Fraction
from math import lcm

from sharding.bucket_map import Imbalance
from sharding.rebalance.load import NOTHING, exact, factors_of, loads_of
from sharding.rebalance.request import Request, Role

#: A bucket among its shard's others: by its load, then by its bytes, then by its number.
Weighed = tuple[int, int, int]


@dataclass(frozen=True, slots=True, order=True)
class Measure:
    """
    How far shards are from where a plan brings them; every move of a plan lowers it.

    First what has to leave its shard: the load of all buckets that are on a drained or reserved shard, or not on the
    one that they are pinned to. Then the unevenness of the shards that share the load: the sum of load² / weight over
    them, which is the sum of the squared deviations from the fair shares plus something that does not change as long
    as the first number does not.
    """

    misplaced: int
    unevenness: Fraction


class Standing:
    """
    The shards after some moves, from the map of a request on.

    Each bucket moves once. What a shard gives away fills it until the end of the plan: its rows stay for a while, in
    case the move is taken back.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.shards = request.named
        self.weights = request.sharing
        self.loads = loads_of(request.map.buckets, request.sizes, request.by)
        self.improvement = exact(request.improvement)
        self.factors = factors_of(self.weights)
        # A shard's relative load is its load by its units, times the scale.
        self._scale = lcm(*self.factors.values())
        self._units = {alias: self._scale // factor for alias, factor in self.factors.items()}
        self.owners = list(request.map.owners)
        self.moved: set[int] = set()
        self.held = dict.fromkeys(self.shards, 0)
        self.filled = dict.fromkeys(self.shards, 0)
        #: What may leave each shard for balance, in ascending order.
        self.movable: dict[str, list[Weighed]] = {alias: [] for alias in self.shards}
        for bucket, alias in enumerate(self.owners):
            self.held[alias] += self.loads[bucket]
            self.filled[alias] += self.bytes_of(bucket)
            if bucket not in request.pins:
                self.movable[alias].append(self._weighed(bucket))
        for buckets in self.movable.values():
            buckets.sort()

    def bytes_of(self, bucket: int) -> int:
        return self.request.sizes.get(bucket, NOTHING).bytes

    def misplaced(self) -> list[int]:
        """Return the buckets that have to leave their shard, in ascending order."""
        return [bucket for bucket, alias in enumerate(self.owners) if self._is_misplaced(bucket, alias)]

    def relative(self, alias: str) -> int:
        """Return a sharing shard's load as the others' are to be compared with it."""
        return self.held[alias] * self.factors[alias]

    def has_room(self, alias: str, size: int) -> bool:
        """Return whether a shard can receive ``size`` bytes."""
        capacity = self.shards[alias].capacity
        return capacity is None or self.filled[alias] + size <= capacity

    def receivers(self) -> list[str]:
        """Return the shards that receive buckets which are not pinned."""
        return [alias for alias, shard in self.shards.items() if shard.role is Role.OPEN]

    def move(self, bucket: int, target: str) -> None:
        source = self.owners[bucket]
        self.owners[bucket] = target
        self.held[source] -= self.loads[bucket]
        self.held[target] += self.loads[bucket]
        self.filled[target] += self.bytes_of(bucket)
        self.moved.add(bucket)
        if bucket not in self.request.pins:
            buckets = self.movable[source]
            del buckets[bisect_left(buckets, self._weighed(bucket))]

    def fair(self, among: Collection[str]) -> Fraction:
        """Return the relative load of sharing shards if the load of them all were shared fairly."""
        total, units = sum(self.held[each] for each in among), sum(self._units[each] for each in among)
        return Fraction(total * self._scale, units) if among else Fraction(0)

    def share_of(self, alias: str) -> Fraction:
        """Return the load of a sharing shard as a multiple of its fair share."""
        fair = self.fair(self.weights)
        # Shards that have nothing have their share of it.
        return self.relative(alias) / fair if fair else Fraction(1)

    def deviation(self) -> Fraction:
        """Return how far the shard that is farthest from its fair share is from it, as a part of it."""
        return max((abs(self.share_of(alias) - 1) for alias in self.weights), default=Fraction(0))

    def measure(self) -> Measure:
        misplaced = sum(self.loads[bucket] for bucket in self.misplaced())
        unevenness = sum((Fraction(self.relative(alias) * self.held[alias]) for alias in self.weights), Fraction(0))
        return Measure(misplaced, unevenness)

    def imbalance(self) -> Imbalance:
        """Return how uneven the loads of the shards are that share them."""
        total_weight = sum(self.weights.values())
        variance, fullest = 0.0, 0.0
        for alias, weight in self.weights.items():
            ratio = float(self.share_of(alias))
            variance += weight / total_weight * (ratio - 1) ** 2
            fullest = max(fullest, ratio)
        return Imbalance(sd=variance**0.5, max_over_mean=fullest)

    def _is_misplaced(self, bucket: int, alias: str) -> bool:
        pinned = self.request.pins.get(bucket)
        if pinned is not None:
            return pinned != alias
        return alias not in self.weights

    def _weighed(self, bucket: int) -> Weighed:
        return (self.loads[bucket], self.bytes_of(bucket), bucket)

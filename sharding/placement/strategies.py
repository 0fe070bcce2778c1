"""
The strategies: even, modulo and consistent hashing. Each names an owner for every bucket of a request.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import count
from typing import ClassVar, Final, Protocol

import mmh3

from sharding.placement.request import PlacementRequest

MAX_POINTS: Final = 1_000_000


class Placement(Protocol):
    """
    A strategy that names an owner for every bucket.

    It honours the pins, names declared shards only, and gives equal answers to equal requests in every process.
    """

    name: ClassVar[str]

    def owners(self, request: PlacementRequest) -> Sequence[str]:
        """Return the owner of bucket 0, 1, 2 and so on."""
        ...


@dataclass(frozen=True, slots=True)
class EvenPlacement:
    """
    Give each shard its share, rounded to whole buckets, by moving as few buckets of the current map as possible.

    The order in which the shards are declared does not matter.
    """

    name: ClassVar[str] = "even"

    def owners(self, request: PlacementRequest) -> Sequence[str]:
        owners = dict(request.pins)
        wanted = {} if request.current is None else dict(enumerate(request.current.owners))
        wanted.update(request.pins)
        room = _quotas(request, held=Counter(wanted.values()))
        for alias in request.pins.values():
            room[alias] -= 1
        for bucket, alias in wanted.items():
            if bucket not in owners and room.get(alias, 0) > 0:
                owners[bucket] = alias
                room[alias] -= 1
        ownerless = [bucket for bucket in range(request.buckets) if bucket not in owners]
        owners.update(zip(ownerless, _hands(room), strict=False))
        return [owners[bucket] for bucket in range(request.buckets)]


@dataclass(frozen=True, slots=True)
class ModuloPlacement:
    """
    Give bucket ``b`` to the shard at position ``b % n`` in their declared order.

    Anyone can compute it, but a change of ``n`` renumbers: most buckets move.
    """

    name: ClassVar[str] = "modulo"

    def owners(self, request: PlacementRequest) -> Sequence[str]:
        if len(set(request.weights.values())) > 1:
            raise ValueError(
                "The placement 'modulo' cannot weight shards. "
                "Remove the weights, or use the placement 'even' or 'consistent'."
            )
        shards, pins = request.shards, request.pins
        return [pins.get(bucket, shards[bucket % len(shards)]) for bucket in range(request.buckets)]


@dataclass(frozen=True, slots=True)
class ConsistentPlacement:
    """
    Give each bucket to the shard that owns the next point on a ring of hashes (consistent hashing, virtual nodes).

    A shard has ``points`` times its weight points. The owner of a bucket depends on nothing but the names and weights
    of the shards, so processes agree without a table; and adding, removing or reweighting one shard moves buckets to or
    from that shard alone. More points spread better: about 11 % (sd) with 100, 6 % with 1000.

    Raises:
        ValueError: ``points`` is less than 1.
    """

    name: ClassVar[str] = "consistent"
    points: int = 1000

    def __post_init__(self) -> None:
        if self.points < 1:
            raise ValueError(f"A shard has at least 1 point on the ring, not {self.points!r}.")

    def owners(self, request: PlacementRequest) -> Sequence[str]:
        ring = self.ring(request.weights)
        return [request.pins.get(bucket) or _next_point(ring, bucket) for bucket in range(request.buckets)]

    def ring(self, weights: Mapping[str, float]) -> list[tuple[int, str]]:
        """
        Return the points of all shards as (position, alias), in the order of the ring.

        Raises:
            ValueError: The weights ask for more points than a process should hold.
        """
        sizes = {alias: max(1, round(self.points * weight)) for alias, weight in weights.items()}
        if sum(sizes.values()) > MAX_POINTS:
            raise ValueError(
                f"The ring would have {sum(sizes.values())} points, and {MAX_POINTS} are allowed. "
                f"Scale the weights down: a shard of weight 1 has {self.points}."
            )
        # Equal positions are ordered by alias, so that the ring does not depend on the order of the shards.
        return sorted((_position(f"{alias}#{point}"), alias) for alias, size in sizes.items() for point in range(size))


def _quotas(request: PlacementRequest, *, held: Mapping[str, int]) -> dict[str, int]:
    """
    Return how many buckets each shard gets: its share, rounded down or up, but never less than is pinned to it.

    The largest fractions are rounded up; among equal ones, those of shards that would otherwise give a bucket away.
    """
    pinned = Counter(request.pins.values())
    quotas: dict[str, int] = {}
    # Exact fractions: with floats, rounding errors would decide between equal shares, by the order of the shards.
    exact = {alias: Fraction(weight) for alias, weight in request.weights.items()}
    while True:
        rest, total = request.buckets - sum(quotas.values()), sum(exact.values())
        shares = {alias: rest * weight / total for alias, weight in exact.items()}
        overfull = [alias for alias, share in shares.items() if pinned[alias] > share]
        if not overfull:
            break
        for alias in overfull:
            quotas[alias] = pinned[alias]
            del exact[alias]
    quotas.update((alias, int(share)) for alias, share in shares.items())

    def claim(alias: str) -> tuple[Fraction, bool, str]:
        return -(shares[alias] % 1), held[alias] <= quotas[alias], alias

    for alias in sorted(shares, key=claim)[: request.buckets - sum(quotas.values())]:
        quotas[alias] += 1
    return quotas


def _hands(room: Mapping[str, int]) -> Iterator[str]:
    """Deal like cards: one bucket to every shard that has room, then the next round."""
    aliases = sorted(room)
    return (alias for turn in count() for alias in aliases if room[alias] > turn)


def _position(text: str) -> int:
    return mmh3.hash(text.encode(), 0, signed=False)


def _next_point(ring: Sequence[tuple[int, str]], bucket: int) -> str:
    index = bisect_left(ring, (_position(f"bucket:{bucket}"), ""))
    return ring[index % len(ring)][1]

"""
Bring the shards' loads near their fair shares, each move from a fuller shard to an emptier one.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil, floor

from sharding.rebalance.evacuation import Step
from sharding.rebalance.load import exact
from sharding.rebalance.request import Role
from sharding.rebalance.standing import Standing, Weighed

HasRoom = Callable[[int], bool]
#: Chooses among a shard's buckets that are worth moving, given the load that would make the two shards equal.
Choose = Callable[[Sequence[Weighed], Fraction, HasRoom], Weighed | None]


def balancing(standing: Standing, way: Way) -> Iterator[Step]:
    """
    Yield moves until each shard is near its fair share or nothing more can be done, and make them in ``standing``.

    Nothing is yielded while the shards are within the threshold. Buckets of less than a tenth of the average only move
    to bring the shards within it: hundreds of empty ones would not be worth the last per cent.
    """
    request = standing.request
    threshold, tolerance = exact(request.threshold), exact(min(request.tolerance, request.threshold))
    began = False
    for step in _moves(standing, way, threshold, least=0):
        began = True
        yield step
    if began and tolerance < threshold:
        yield from _moves(standing, way, tolerance, least=sum(standing.loads) // (TRIFLE * len(standing.loads)))


def fewest(buckets: Sequence[Weighed], equal: Fraction, has_room: HasRoom) -> Weighed | None:
    """Choose the largest bucket that does not turn the difference round; if there is none, the smallest at all."""
    below = _at_most(buckets, floor(equal), has_room)
    return below if below is not None else _above(buckets, floor(equal), has_room)


def nearest(buckets: Sequence[Weighed], equal: Fraction, has_room: HasRoom) -> Weighed | None:
    """Choose the bucket that makes the shards most nearly equal."""
    below = _at_most(buckets, floor(equal), has_room)
    above = _above(buckets, floor(equal), has_room)
    if below is None or above is None:
        return above if below is None else below
    return min(below, above, key=lambda found: (abs(found[0] - equal), found[1]))


#: Buckets of less than this part of the average are trifles.
TRIFLE = 10
#: How many of the fullest and emptiest shards are compared in search of the steepest step.
STEEP = 3


@dataclass(frozen=True, slots=True)
class Way:
    """How to choose the next move."""

    choose: Choose
    #: Whether the ideal bucket makes the two shards equal; or else it gives one of them its fair share.
    equal: bool = False
    #: Whether to take the move that lowers the measure most, wherever; or else one of the shard that is farthest off.
    steep: bool = False


#: What is tried; the best plan counts.
WAYS = (Way(fewest), Way(fewest, equal=True), Way(nearest, equal=True), Way(fewest, equal=True, steep=True))


def _moves(standing: Standing, way: Way, tolerance: Fraction, *, least: int) -> Iterator[Step]:
    """
    Yield moves of buckets with at least a load until each shard is within the tolerance.

    A shard that can do nothing about its share, such as a whale's, is set aside, and the rest is balanced by itself.
    """
    among, moved = list(standing.weights), True
    while moved:
        # What was set aside may have become possible.
        among, moved = list(standing.weights), False
        while (farthest := _farthest(standing, among, tolerance)) is not None:
            found = _pair(standing, way, among, least)
            if found is None:
                among.remove(farthest)
                continue
            bucket, target = found
            source, moved = standing.owners[bucket], True
            shares = float(standing.share_of(source)), float(standing.share_of(target))
            standing.move(bucket, target)
            yield bucket, target, f"{shares[0]:.2f} to {shares[1]:.2f} of fair share"


def _farthest(standing: Standing, among: Sequence[str], tolerance: Fraction) -> str | None:
    """Return the shard that is farthest from its fair share; None if each is within the tolerance."""
    fair = standing.fair(among)
    if not fair:
        return None
    farthest = max(among, key=lambda alias: (abs(standing.relative(alias) - fair), alias))
    return farthest if abs(standing.relative(farthest) / fair - 1) > tolerance else None


def _pair(standing: Standing, way: Way, among: Sequence[str], least: int) -> tuple[int, str] | None:
    """Return a bucket and its target: from the fullest shards, or to the emptiest; None if nothing can move."""
    order = sorted(among, key=lambda alias: (standing.relative(alias), alias))
    fair = standing.fair(among)
    targets = [alias for alias in order[:-1] if standing.relative(alias) < fair]
    low, top = order[0], order[-1]
    if way.steep:
        pairs = [(source, target) for source in order[: -STEEP - 1 : -1] for target in targets[:STEEP]]
        found = [each for pair in pairs if (each := _bucket(standing, way, *pair, fair, least)) is not None]
        if found:
            return max(found, key=lambda each: (_gain(standing, *each), each))
    for source, target in [*((top, each) for each in targets), *((each, low) for each in reversed(order[1:-1]))]:
        bucket = _bucket(standing, way, source, target, fair, least)
        if bucket is not None:
            return bucket
    return None


def _gain(standing: Standing, bucket: int, target: str) -> int:
    """Return by how much a move lowers the measure."""
    load, source = standing.loads[bucket], standing.owners[bucket]
    difference = standing.relative(source) - standing.relative(target)
    return load * (2 * difference - load * (standing.factors[source] + standing.factors[target]))


def _bucket(
    standing: Standing, way: Way, source: str, target: str, fair: Fraction, least: int
) -> tuple[int, str] | None:
    difference = standing.relative(source) - standing.relative(target)
    if difference <= 0 or standing.shards[target].role is not Role.OPEN:
        return None
    equal = Fraction(difference, standing.factors[source] + standing.factors[target])
    # With twice that they would change places, which does not lower the measure.
    most = min(floor(2 * equal / (1 + standing.improvement)), ceil(2 * equal) - 1)
    buckets = standing.movable[source]
    worthy = buckets[_end(buckets, least - 1) : _end(buckets, most)]
    ideal = equal if way.equal else _ideal(standing, source, target, fair)
    chosen = way.choose(worthy, ideal, lambda size: standing.has_room(target, size))
    return None if chosen is None else (chosen[2], target)


def _ideal(standing: Standing, source: str, target: str, fair: Fraction) -> Fraction:
    """Return what one of the shards has too much or the other too little, whichever is less."""
    surplus = (standing.relative(source) - fair) / standing.factors[source]
    deficit = (fair - standing.relative(target)) / standing.factors[target]
    return max(Fraction(0), min(surplus, deficit))


def _at_most(buckets: Sequence[Weighed], load: int, has_room: HasRoom) -> Weighed | None:
    """Return the largest bucket of at most a load; of equal ones, that with the fewest bytes."""
    end = _end(buckets, load)
    while end:
        begin = bisect_left(buckets, (buckets[end - 1][0], 0, 0), hi=end)
        if has_room(buckets[begin][1]):
            return buckets[begin]
        end = begin
    return None


def _above(buckets: Sequence[Weighed], load: int, has_room: HasRoom) -> Weighed | None:
    """Return the smallest bucket of more than a load."""
    above = buckets[_end(buckets, load) :]
    return next((bucket for bucket in above if has_room(bucket[1])), None)


def _end(buckets: Sequence[Weighed], load: int) -> int:
    """Return how many of the buckets have at most a load."""
    return bisect_left(buckets, (load + 1, 0, 0))

"""
Bring away what has to leave its shard: pinned buckets to where they are pinned, those of drained shards to the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from sharding.rebalance.request import Request, Role
from sharding.rebalance.standing import Standing

#: A bucket, its target, and why.
Step = tuple[int, str, str]
#: Names the receiver that a bucket goes to; None if no one has room.
Choose = Callable[[Standing, int], str | None]


class NoRoom(ValueError):
    """What has to leave a shard does not fit on the others."""


def evacuation(request: Request) -> list[Step]:
    """
    Return the moves that bring away what has to leave its shard, so that the others stay as even as they can.

    Where that exceeds a capacity, space goes before evenness.

    Raises:
        NoRoom: no arrangement was found that keeps within the capacities.
    """
    try:
        return list(_steps(Standing(request), _emptiest, _heaviest_first))
    except NoRoom:
        return list(_steps(Standing(request), _tightest, _largest_first))


def _steps(standing: Standing, choose: Choose, order: Callable[[Standing, int], tuple[int, ...]]) -> Iterator[Step]:
    request = standing.request
    misplaced = standing.misplaced()
    for bucket in (each for each in misplaced if each in request.pins):
        target = request.pins[bucket]
        if not standing.has_room(target, standing.bytes_of(bucket)):
            raise NoRoom(
                f"Bucket {bucket} is pinned to {target!r}, and its {standing.bytes_of(bucket):,} bytes do not fit "
                f"there: {_space(standing, target)}. Raise the capacity, or pin it to another shard."
            )
        standing.move(bucket, target)
        yield bucket, target, f"pinned to {target}"
    unpinned = [each for each in misplaced if each not in request.pins]
    for bucket in sorted(unpinned, key=lambda each: order(standing, each)):
        source = standing.owners[bucket]
        chosen = choose(standing, bucket)
        if chosen is None:
            raise NoRoom(_no_room(standing, bucket, source))
        standing.move(bucket, chosen)
        reserved = standing.shards[source].role is Role.RESERVED
        yield bucket, chosen, f"{source} is kept for pinned buckets" if reserved else f"{source} is drained"


def _heaviest_first(standing: Standing, bucket: int) -> tuple[int, ...]:
    return (-standing.loads[bucket], bucket)


def _largest_first(standing: Standing, bucket: int) -> tuple[int, ...]:
    return (-standing.bytes_of(bucket), -standing.loads[bucket], bucket)


def _emptiest(standing: Standing, bucket: int) -> str | None:
    """Choose the receiver that has the least load, for its weight, with the bucket."""
    load = standing.loads[bucket]
    return min(
        _with_room(standing, bucket),
        key=lambda alias: ((standing.held[alias] + load) * standing.factors[alias], alias),
        default=None,
    )


def _tightest(standing: Standing, bucket: int) -> str | None:
    """Choose the receiver that the bucket fills most nearly; one without a limit last."""

    def left(alias: str) -> tuple[bool, int, int, str]:
        capacity = standing.shards[alias].capacity
        rest = 0 if capacity is None else capacity - standing.filled[alias]
        return capacity is None, rest, standing.relative(alias), alias

    return min(_with_room(standing, bucket), key=left, default=None)


def _with_room(standing: Standing, bucket: int) -> list[str]:
    size = standing.bytes_of(bucket)
    return [alias for alias in standing.receivers() if standing.has_room(alias, size)]


def _no_room(standing: Standing, bucket: int, source: str) -> str:
    receivers = standing.receivers()
    if not receivers:
        return f"{source!r} cannot give its buckets away: no shard may receive them. Open one, or add one."
    spaces = "; ".join(_space(standing, alias) for alias in receivers)
    left = [each for each in standing.misplaced() if standing.owners[each] == source]
    size = sum(standing.bytes_of(each) for each in left)
    return (
        f"The buckets of {source!r} do not fit on the other shards: {len(left):,} of them with {size:,} bytes are "
        f"left, and bucket {bucket} with {standing.bytes_of(bucket):,} bytes fits nowhere ({spaces}). Raise a "
        f"capacity, or add a shard."
    )


def _space(standing: Standing, alias: str) -> str:
    capacity = standing.shards[alias].capacity
    return f"{alias} has {max((capacity or 0) - standing.filled[alias], 0):,} of {capacity:,} bytes free"

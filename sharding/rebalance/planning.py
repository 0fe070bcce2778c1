"""
Make plans: rebalance, add shards, drain shards, give shards other weights, isolate a key.

Each move of a plan lowers the Measure of how the shards stand, no bucket moves twice, pins are kept, no shard is filled
beyond its capacity at any time, and equal requests have equal plans.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

from sharding.bucket_map import BucketMap
from sharding.rebalance.balancing import WAYS, balancing
from sharding.rebalance.evacuation import Step, evacuation
from sharding.rebalance.load import NOTHING, Size, is_count
from sharding.rebalance.plan import Balance, Plan, PlannedMove, Share, digest_of
from sharding.rebalance.reasons import sentences
from sharding.rebalance.request import Request, Role
from sharding.rebalance.standing import Measure, Standing


def rebalance(request: Request) -> Plan:
    """
    Plan to bring every bucket where it has to be, and then every shard near its fair share.

    Raises:
        NoRoom: what has to leave a shard does not fit on the others.
    """
    return _plan(request, _balanced(request, evacuation(request)))


def add(request: Request, aliases: Collection[str]) -> Plan:
    """
    Plan to move buckets to new shards, while these have less than their fair share; nothing moves between the others.

    Raises:
        NoRoom: a pinned bucket does not fit where it is pinned.
        ValueError: one of ``aliases`` is none of the shards.
    """
    _check_named(request, aliases)
    shards = tuple(
        replace(shard, role=Role.CLOSED) if shard.role is Role.OPEN and shard.alias not in aliases else shard
        for shard in request.shards
    )
    return rebalance(replace(request, shards=shards))


def drain(request: Request, aliases: Collection[str]) -> Plan:
    """
    Plan to empty shards, and to leave the others as even as that can make them.

    Raises:
        NoRoom: their buckets do not fit on the others.
        ValueError: one of ``aliases`` is none of the shards, or a bucket is pinned to it.
    """
    _check_named(request, aliases)
    request = _with_role(request, aliases, Role.DRAINED)
    return _plan(request, evacuation(request))


def reweight(request: Request, weights: Mapping[str, float]) -> Plan:
    """
    Plan to give shards the shares that other weights mean; a shard that is not among them keeps its own.

    Raises:
        ValueError: a weight is no positive number, or its shard none of the shards.
    """
    _check_named(request, weights)
    shards = (replace(shard, weight=weights.get(shard.alias, shard.weight)) for shard in request.shards)
    return rebalance(replace(request, shards=tuple(shards)))


@dataclass(frozen=True, slots=True)
class KeyInBucket:
    """A shard key, as it is written in sentences; what is stored under it; and how many keys its bucket has in all."""

    name: str
    size: Size
    keys: int

    def __post_init__(self) -> None:
        if not is_count(self.keys):
            raise ValueError(f"The number of keys in a bucket is a whole number of 0 or more, not {self.keys!r}.")


def isolate(request: Request, bucket: int, key: KeyInBucket, *, target: str | None = None, alone: bool = True) -> Plan:
    """
    Plan to bring the bucket of a key to a shard of its own, and to pin it there.

    Without a ``target`` that is the first open shard, by alias, that has no bucket and has room. A target that has
    buckets gives them to the others, but for those that are pinned there; it keeps them if it need not be ``alone``.

    Raises:
        NoRoom: the bucket does not fit on the target, or the target's buckets not on the others.
        ValueError: there is no such shard or bucket, or none is empty.
    """
    request.map.owner(bucket)
    chosen = _empty_shard(request, bucket) if target is None else target
    _check_named(request, [chosen])
    request = replace(request, pins={**request.pins, bucket: chosen})
    if alone:
        request = _with_role(request, [chosen], Role.RESERVED)
    plan = _plan(request, evacuation(request))
    reasons = (*plan.reasons, _neighbours(request, bucket, key, chosen))
    return replace(plan, reasons=reasons, pins=((bucket, chosen),))


def measure_of(request: Request, bucket_map: BucketMap) -> Measure:
    """Return how far from what a request wants its shards are under a map; see Measure."""
    return Standing(replace(request, map=bucket_map)).measure()


def _balanced(request: Request, first: list[Step]) -> list[Step]:
    """
    Return the first moves and the best of the ways to go on: of those that end as even, the one with the fewest bytes.

    What is within the tolerance is as even as the best.
    """
    tried = []
    for way in WAYS:
        standing = Standing(request)
        for bucket, target, _ in first:
            standing.move(bucket, target)
        steps = [*first, *balancing(standing, way)]
        uneven = max(standing.imbalance().sd, request.tolerance)
        carried = sum(standing.bytes_of(bucket) + request.per_move for bucket, _, _ in steps)
        tried.append((uneven, (carried, standing.measure(), len(steps)), steps))
    most = min(uneven for uneven, _, _ in tried) + request.tolerance
    return min((price, steps) for uneven, price, steps in tried if uneven <= most)[1]


def _plan(request: Request, steps: list[Step]) -> Plan:
    standing = Standing(request)
    before = _balance(standing)
    moves = []
    for bucket, target, reason in steps:
        size = request.sizes.get(bucket, NOTHING)
        moves.append(PlannedMove(bucket, standing.owners[bucket], target, size.rows, size.bytes, reason))
        standing.move(bucket, target)
    return Plan(
        epoch=request.map.epoch,
        buckets=request.map.buckets,
        digest=digest_of(request.map.owners),
        by=request.by,
        moves=tuple(moves),
        before=before,
        after=_balance(standing),
        reasons=tuple(sentences(standing, len(moves))),
    )


def _balance(standing: Standing) -> Balance:
    sizes: dict[str, Size] = dict.fromkeys(standing.shards, NOTHING)
    for bucket, alias in enumerate(standing.owners):
        sizes[alias] += standing.request.sizes.get(bucket, NOTHING)
    shares = []
    for alias, shard in standing.shards.items():
        shares.append(
            Share(
                alias=alias,
                weight=float(shard.weight),
                buckets=standing.owners.count(alias),
                rows=sizes[alias].rows,
                bytes=sizes[alias].bytes,
                load=float(standing.share_of(alias)) if alias in standing.weights else None,
            )
        )
    return Balance(tuple(shares), standing.imbalance())


def _check_named(request: Request, aliases: Collection[str]) -> None:
    for alias in aliases:
        if alias not in request.named:
            raise ValueError(
                f"{alias!r} is none of the shards: {', '.join(request.named)}. Declare it, or correct the name."
            )


def _with_role(request: Request, aliases: Collection[str], role: Role) -> Request:
    shards = (replace(shard, role=role) if shard.alias in aliases else shard for shard in request.shards)
    return replace(request, shards=tuple(shards))


def _empty_shard(request: Request, bucket: int) -> str:
    size = request.sizes.get(bucket, NOTHING).bytes
    standing = Standing(request)
    for alias in standing.receivers():
        if not request.map.buckets_of(alias) and standing.has_room(alias, size):
            return alias
    raise ValueError(
        f"No open shard is empty and has room for bucket {bucket} with {size:,} bytes. Add a shard, or name one that "
        f"gives its buckets to the others."
    )


def _neighbours(request: Request, bucket: int, key: KeyInBucket, target: str) -> str:
    size = request.sizes.get(bucket, NOTHING)
    others = max(key.keys - 1, 0)
    where = f"Bucket {bucket}, which has the key {key.name}, is pinned to {target}"
    if not others:
        return f"{where}. No other key is in it."
    # What is counted at different moments may not add up.
    rest = max(size.bytes - key.size.bytes, 0)
    comes = "1 other key in it comes" if others == 1 else f"{others:,} other keys in it come"
    return f"{where}. {comes} along, with {rest:,} bytes."

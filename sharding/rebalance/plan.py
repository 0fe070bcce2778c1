"""
A plan: moves in their order, from one bucket map on, with what they bring. It is a value; planning.py makes it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

from sharding.bucket_map import BucketMap, Imbalance


@dataclass(frozen=True, slots=True)
class PlannedMove:
    """One bucket that is to go from one shard to another, what is in it, and why it goes."""

    bucket: int
    source: str
    target: str
    rows: int
    bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class Share:
    """What one shard has; ``load`` is a multiple of its fair share, None for one that does not share the load."""

    alias: str
    weight: float
    buckets: int
    rows: int
    bytes: int
    load: float | None


@dataclass(frozen=True, slots=True)
class Balance:
    """What all shards have, by alias, and how uneven that is."""

    shares: tuple[Share, ...]
    imbalance: Imbalance

    @property
    def aliases(self) -> tuple[str, ...]:
        return tuple(share.alias for share in self.shares)


@dataclass(frozen=True, slots=True)
class Plan:
    """
    Moves, in an order in which each of them is for the better, so that one may stop after any.

    ``digest`` stands for the whole bucket map from which it starts. ``reasons`` are sentences for whoever decides, and
    ``pins`` belong into SHARDING["PINS"] once it is done.

    Raises:
        ValueError: a bucket moves twice, or from a shard to itself.
    """

    epoch: int
    buckets: int
    digest: str
    by: str
    moves: tuple[PlannedMove, ...]
    before: Balance
    after: Balance
    reasons: tuple[str, ...] = ()
    pins: tuple[tuple[int, str], ...] = ()

    def __post_init__(self) -> None:
        buckets = [*(move.bucket for move in self.moves), *(bucket for bucket, _ in self.pins)]
        for bucket in buckets:
            if not 0 <= bucket < self.buckets:
                raise ValueError(
                    f"Bucket {bucket} is planned for and does not exist: this cluster has the buckets 0 to "
                    f"{self.buckets - 1}."
                )
        for bucket, times in Counter(move.bucket for move in self.moves).items():
            if times > 1:
                raise ValueError(f"Bucket {bucket} moves {times} times in one plan. It may move once.")
        for move in self.moves:
            if move.source == move.target:
                raise ValueError(f"Bucket {move.bucket} moves from {move.source!r} to itself.")

    @property
    def bytes(self) -> int:
        """What all moves carry."""
        return sum(move.bytes for move in self.moves)

    @property
    def rows(self) -> int:
        return sum(move.rows for move in self.moves)


def objection(plan: Plan, bucket_map: BucketMap) -> str | None:
    """
    Return why a plan must not be gone on with under a map, as a sentence; None if it may.

    It may while every bucket is where it was when the plan was made, or where the plan has brought it. The order in
    which the moves were done does not matter, so that several can be under way at a time.
    """
    if bucket_map.buckets != plan.buckets:
        return (
            f"The plan is for a cluster of {plan.buckets} buckets, and this one has {bucket_map.buckets}. It was made "
            f"for another cluster."
        )
    if bucket_map.epoch < plan.epoch:
        return (
            f"The plan was made at epoch {plan.epoch} of the bucket map, and this is epoch {bucket_map.epoch}. Read "
            f"the map again; if it stays older, the plan was made for another cluster."
        )
    owners = list(bucket_map.owners)
    for move in plan.moves:
        if owners[move.bucket] not in (move.source, move.target):
            return (
                f"Bucket {move.bucket} is to go from {move.source} to {move.target}, and {owners[move.bucket]} owns "
                f"it now. Make a new plan."
            )
        owners[move.bucket] = move.source
    if digest_of(owners) != plan.digest:
        return (
            f"Other buckets than the plan's have moved since epoch {plan.epoch}, on which it builds. Make a new plan."
        )
    return None


def still_valid(plan: Plan, bucket_map: BucketMap) -> bool:
    """Return whether a plan may be gone on with under a map; see objection()."""
    return objection(plan, bucket_map) is None


def remaining(plan: Plan, bucket_map: BucketMap) -> tuple[PlannedMove, ...]:
    """
    Return the moves that are still to be done, in their order.

    Raises:
        ValueError: the plan must not be gone on with.
    """
    reason = objection(plan, bucket_map)
    if reason is not None:
        raise ValueError(reason)
    return tuple(move for move in plan.moves if bucket_map.owner(move.bucket) == move.source)


def digest_of(owners: Iterable[str]) -> str:
    """Return a short text that stands for the owners of all buckets."""
    # No alias has a line break in it that DATABASES would tell apart.
    return sha256("\n".join(owners).encode()).hexdigest()

"""
A placement's answer with its price: the moves from the current map, the imbalance that remains, and warnings.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from sharding.bucket_map import BucketMap, Imbalance
from sharding.placement.request import PlacementRequest
from sharding.placement.strategies import ConsistentPlacement, EvenPlacement, ModuloPlacement, Placement

PLACEMENTS: Final[dict[str, Placement]] = {
    "even": EvenPlacement(),
    "modulo": ModuloPlacement(),
    "consistent": ConsistentPlacement(),
}


@dataclass(frozen=True, slots=True)
class Proposal:
    """
    What a placement proposes, and what it costs.

    ``moves`` lists (bucket, from, to) by ascending bucket, and is empty without a current map. ``warnings`` are
    sentences for whoever decides.
    """

    owners: tuple[str, ...]
    moves: tuple[tuple[int, str, str], ...]
    imbalance: Imbalance
    warnings: tuple[str, ...]

    @property
    def changes(self) -> dict[int, str]:
        """The moves as ``BucketMap.moved()`` takes them: bucket to new owner."""
        return {bucket: target for bucket, _, target in self.moves}


def propose(
    name: str | Placement,
    shards: Sequence[str],
    buckets: int,
    *,
    weights: Mapping[str, float] | None = None,
    current: BucketMap | None = None,
    pins: Mapping[int, str] | None = None,
) -> Proposal:
    """
    Return the owners that a placement proposes for ``buckets`` buckets on ``shards``, with the moves from ``current``.

    ``name`` is a key of PLACEMENTS, or a placement. A shard without a weight has 1. A pinned bucket goes to the shard
    it is pinned to, as a part of that shard's share. Owners in ``current`` that are not among ``shards`` are emptied.

    >>> proposal = propose("even", ["a", "b", "c"], 8, current=BucketMap(0, tuple("aaaabbbb")))
    >>> proposal.owners, proposal.moves
    (('a', 'a', 'a', 'c', 'b', 'b', 'b', 'c'), ((3, 'a', 'c'), (7, 'b', 'c')))

    Raises:
        UnknownShard: A weight or a pin names an alias that is not among ``shards``.
        ValueError: The request makes no sense (see PlacementRequest), or there is no such placement.
    """
    placement = _placement(name)
    request = PlacementRequest(shards, buckets, weights or {}, current, pins or {})
    owners = tuple(placement.owners(request))
    moves = _moves(current, owners)
    proposed = BucketMap(0, owners)
    return Proposal(
        owners=owners,
        moves=moves,
        imbalance=proposed.imbalance(request.weights),
        warnings=(*_empty_shards(request, proposed), *_renumbering(request, placement, len(moves))),
    )


def _placement(name: str | Placement) -> Placement:
    if not isinstance(name, str):
        return name
    if name not in PLACEMENTS:
        raise ValueError(f"There is no placement {name!r}. Use one of: {', '.join(PLACEMENTS)}.")
    return PLACEMENTS[name]


def _moves(current: BucketMap | None, owners: Sequence[str]) -> tuple[tuple[int, str, str], ...]:
    if current is None:
        return ()
    pairs = enumerate(zip(current.owners, owners, strict=True))
    return tuple((bucket, source, target) for bucket, (source, target) in pairs if source != target)


def _empty_shards(request: PlacementRequest, proposed: BucketMap) -> list[str]:
    return [
        f"The shard {alias!r} would own no bucket. Raise its weight, or declare fewer shards."
        for alias in request.shards
        if not proposed.buckets_of(alias)
    ]


def _renumbering(request: PlacementRequest, placement: Placement, moves: int) -> list[str]:
    """Warn of moving most buckets, unless there is no better way, as when a cluster of one is spread out."""
    if 2 * moves <= request.buckets:
        return []
    fewest = len(_moves(request.current, PLACEMENTS["even"].owners(request)))
    if moves <= fewest:
        return []
    return [
        f"The placement {placement.name!r} would move {moves} of {request.buckets} buckets "
        f"({moves / request.buckets:.0%}) where 'even' moves {fewest}. "
        "Use 'even', unless the owners must stay computable without the bucket map."
    ]

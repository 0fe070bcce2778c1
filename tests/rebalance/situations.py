"""Situations to plan from, drawn by Hypothesis, and what the tests of plans ask about a plan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

from hypothesis import strategies as st

from sharding.bucket_map import BucketMap
from sharding.rebalance.load import Size
from sharding.rebalance.plan import Plan
from sharding.rebalance.request import Request, Role, Shard

ALIASES = ["a", "b", "c", "d", "e"]

amounts = st.just(0) | st.integers(0, 20) | st.integers(0, 10_000)
sizes = st.builds(Size, rows=amounts, bytes=amounts)
weights = st.sampled_from([1, 1, 1, 2, 3, 0.5, 0.1])
thresholds = st.sampled_from([0, 0.01, 0.1, 0.5])


@st.composite
def requests(draw, /, *, roles=tuple(Role), limited=True, pinned=True, weighted=True, most_buckets=24, **fixed):
    """Draw a request that makes sense; whether a plan can be made is another question."""
    buckets = draw(st.integers(1, most_buckets))
    aliases = draw(st.lists(st.sampled_from(ALIASES), min_size=1, max_size=5, unique=True))
    owners = draw(st.lists(st.sampled_from(aliases), min_size=buckets, max_size=buckets))
    capacities = st.none() | st.integers(0, 20_000) if limited else st.none()
    shards = [
        Shard(alias, draw(weights) if weighted else 1, draw(capacities), draw(st.sampled_from(roles)))
        for alias in aliases
    ]
    open_to_pins = [shard.alias for shard in shards if shard.role is not Role.DRAINED]
    pins = {}
    if pinned and open_to_pins:
        pins = draw(st.dictionaries(st.integers(0, buckets - 1), st.sampled_from(open_to_pins), max_size=3))
    options = {
        "by": draw(st.sampled_from(["bytes", "rows", "buckets"])),
        "threshold": draw(thresholds),
        "tolerance": draw(thresholds),
        "improvement": draw(st.sampled_from([0, 0.1, 0.5, 1])),
    }
    return Request(
        map=BucketMap(draw(st.integers(0, 9)), tuple(owners)),
        shards=tuple(draw(st.permutations(shards))),
        sizes=draw(st.dictionaries(st.integers(0, buckets - 1), sizes)),
        pins=pins,
        **{**options, **fixed},
    )


def prefixes(plan: Plan, request: Request) -> Iterator[BucketMap]:
    """Yield the map before the first move, after it, after the second, and so on."""
    bucket_map = request.map
    yield bucket_map
    for move in plan.moves:
        assert bucket_map.owner(move.bucket) == move.source
        bucket_map = bucket_map.moved({move.bucket: move.target})
        yield bucket_map


def end_of(plan: Plan, request: Request) -> BucketMap:
    return list(prefixes(plan, request))[-1]


def unevenness(owners, loads, weights) -> Fraction:
    """Return the variance of the shards' loads, as multiples of their fair shares: written again from the docs."""
    held = Counter()
    for owner, load in zip(owners, loads, strict=True):
        held[owner] += load
    parts = {alias: Fraction(str(weight)) for alias, weight in weights.items()}
    all_parts, all_loads = sum(parts.values()), sum(held[alias] for alias in parts)
    if not all_loads:
        return Fraction(0)
    ratios = {alias: held[alias] * all_parts / (all_loads * part) for alias, part in parts.items()}
    return sum((parts[alias] / all_parts * (ratio - 1) ** 2 for alias, ratio in ratios.items()), Fraction(0))

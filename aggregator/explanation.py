"""
What the toolkit would do with a queryset: which shards, by which tier, and why. Nothing is asked of any shard's tables;
a lookup that the query names is asked for its buckets.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet

from aggregator import compilers
from aggregator.planner import Tier
from sharding import cluster_map, locality, registry, routing, scopes
from sharding.backends import hook, lookup_reads
from sharding.backends.compilers import unbounded
from sharding.backends.hook import FanOutRequest
from sharding.errors import ShardingError
from sharding.lookups import matching, states


@dataclass(frozen=True, slots=True)
class Explanation:
    """How one query is answered."""

    #: None: it is refused, and ``reason`` is the message of the error.
    tier: Tier | None
    reason: str
    #: The shards that are asked, sorted.
    shards: tuple[str, ...]
    #: The buckets that the WHERE clause proves, or a lookup names; None: every bucket.
    buckets: frozenset[int] | None
    #: The class of the error that a refused query raises.
    error: type[ShardingError] | None = None


def explain(queryset: QuerySet[Any, Any]) -> Explanation:
    """
    Return how ``queryset`` is answered.

    Raises:
        NotSharded: its model is not sharded.
    """
    entry = registry.get(queryset.model)
    buckets: routing.Buckets = None
    try:
        query = scopes.apply(queryset.query, entry)
        buckets = routing.buckets_of(query)
        every = bool(getattr(query, "fan_out", None))
        refused = _refused(query, entry, buckets)
        if refused is not None and every:
            plan = _planned(query, cluster_map.current().aliases, None, refused)
            return Explanation(plan.tier, plan.reason, cluster_map.current().aliases, None)
        if refused is not None:
            raise refused
        single = True
        if buckets is None and not every:
            match = matching.match(query)
            if match is None or not states.is_built(match.lookup.name):
                raise unbounded(entry, None if match is None else match.lookup.name)
            buckets, single = lookup_reads.buckets(match, connections[DEFAULT_DB_ALIAS]), match.single
        shards = cluster_map.current().owners_of(buckets) if buckets is not None else cluster_map.current().aliases
        shards = hook.restricted(query, shards)
        if buckets is not None and (not buckets or (single and len(buckets) == 1)):
            return Explanation(Tier.ONE_SHARD, _reason(buckets), shards, buckets)
        plan = _planned(query, shards, buckets)
    except ShardingError as error:
        return Explanation(None, str(error), (), buckets, type(error))
    return Explanation(plan.tier, plan.reason, shards, buckets)


def _reason(buckets: frozenset[int]) -> str:
    if not buckets:
        return "no row can match"
    (bucket,) = buckets
    return f"every row is in bucket {bucket}"


def _refused(query: Any, entry: Any, buckets: routing.Buckets) -> ShardingError | None:
    """Return why a shard could not answer its part by itself, or None."""
    try:
        locality.check(query, entry, buckets)
    except ShardingError as error:
        return error
    return None


def _planned(
    query: Any, shards: tuple[str, ...], buckets: routing.Buckets, refused: ShardingError | None = None
) -> Any:
    door = connections[DEFAULT_DB_ALIAS]
    compiler = compilers.compiler_for(
        FanOutRequest("SQLCompiler", query.clone(), door, shards, buckets, refused=refused)
    )
    compiler.plan_only()
    return compiler.plan

"""
What the toolkit would do with a queryset: which shards, by which tier, why, and how. Nothing is asked of any shard's
tables; a lookup that the query names is asked for its buckets.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet

from aggregator import compilers
from aggregator.planner import Plan, Tier
from aggregator.steps import steps_of
from sharding import cluster_map, locality, registry, routing, scopes
from sharding.backends import hook, lookup_reads
from sharding.backends.compilers import asks_every_shard, owned, unbounded
from sharding.backends.hook import FanOutRequest
from sharding.errors import CannotMerge, GlobalJoin, ShardingError
from sharding.lookups import matching, states
from sharding.operations.steps import Statement, Steps, grid
from sharding.registry import Entry


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
    #: The SQL, and how the answers of several shards become one.
    steps: Steps = field(default=Steps(), compare=False)

    def __str__(self) -> str:
        return grid(self._rows())

    def _rows(self) -> Iterator[tuple[str, str]]:
        if self.error is not None:
            yield "Refused", f"{self.error.__name__}: {self.reason}"
            return
        yield "Buckets", "any" if self.buckets is None else ", ".join(map(str, sorted(self.buckets))) or "none"
        yield "Shards", ", ".join(self.shards) or "none"
        yield "Tier", f"{self.tier}: {self.reason}"
        yield from self.steps.rows(sql=True)


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
        refused = _refusal(query, entry, buckets)
        single = True
        if buckets is None and not asks_every_shard(query):
            match = matching.match(query)
            if match is None or not states.is_built(match.lookup.name):
                raise unbounded(entry, None if match is None else match.lookup.name)
            buckets, single = lookup_reads.buckets(match, connections[DEFAULT_DB_ALIAS]), match.single
        every = buckets is None or refused is not None
        shards = cluster_map.current().aliases if every else cluster_map.current().owners_of(buckets or ())
        shards = hook.restricted(query, shards)
        if not every and (not buckets or (single and len(buckets) == 1)):
            steps = _on_one_shard(query, shards)
            return Explanation(Tier.ONE_SHARD, _reason(buckets or frozenset()), shards, buckets, steps=steps)
        plan, steps = _planned(query, shards, buckets, refused)
    except ShardingError as error:
        return Explanation(None, str(error), (), buckets, type(error))
    return Explanation(plan.tier, plan.reason, shards, buckets, steps=steps)


def _refusal(query: Any, entry: Entry, buckets: routing.Buckets) -> ShardingError | None:
    """Return why no shard can answer its part by itself, if the rows may be gathered then."""
    try:
        locality.check(query, entry, buckets)
    except (CannotMerge, GlobalJoin) as refusal:
        if not asks_every_shard(query) or query.is_empty():
            raise
        return refusal
    return None


def _reason(buckets: frozenset[int]) -> str:
    if not buckets:
        return "no row can match"
    (bucket,) = buckets
    return f"every row is in bucket {bucket}"


def _on_one_shard(query: Any, shards: tuple[str, ...]) -> Steps:
    if not shards:
        return Steps()
    try:
        sql, params = owned(compilers.SELECT, query.clone(), shards[0], connections[DEFAULT_DB_ALIAS], True).as_sql()
    except EmptyResultSet:
        return Steps()
    return Steps((Statement(shards, sql, tuple(params)),))


def _planned(
    query: Any, shards: tuple[str, ...], buckets: routing.Buckets, refused: ShardingError | None
) -> tuple[Plan, Steps]:
    door = connections[DEFAULT_DB_ALIAS]
    request = FanOutRequest(compilers.SELECT, query.clone(), door, shards, buckets, refused=refused)
    compiler = compilers.compiler_for(request)
    try:
        compiler.plan_only()
        return compiler.plan, steps_of(compiler, shards)
    except EmptyResultSet:
        return compiler.plan, Steps()

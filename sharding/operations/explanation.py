"""
Where a query would go and why, without sending it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import Model, QuerySet

from sharding import cluster_map, locality, registry, routing
from sharding.backends import lookup_reads
from sharding.backends.compilers import native_class, unbounded
from sharding.errors import ShardingError
from sharding.lookups import matching, states
from sharding.registry import Entry

ONE_SHARD = "one shard"
NO_SHARD = "no query"


class Planned(Protocol):
    """What the aggregator says of a query over several buckets."""

    @property
    def tier(self) -> str | None:
        """None where the query is refused; ``reason`` is then the message."""

    @property
    def reason(self) -> str:
        """Why it is that tier."""


Planner = Callable[[QuerySet[Any]], Planned]

_planner: Planner | None = None


def install_planner(function: Planner | None) -> None:
    """
    Install what names the tier of a query over several buckets, or why it cannot be merged.

    The aggregator does, since this package knows nothing of it.
    """
    global _planner
    _planner = function


@dataclass(frozen=True, slots=True)
class Explanation:
    """What would happen to one query."""

    model: str
    filters: Mapping[str, Any]
    #: The buckets that the filters prove; None when they prove nothing.
    buckets: tuple[int, ...] | None
    #: The shards that would be asked.
    shards: tuple[str, ...]
    epoch: int
    tier: str | None
    why: str
    #: Why the query is refused as it stands; what the rest says then needs fan_out(), or does not happen.
    refusal: str | None
    sql: str | None


def explain(model: type[Model], filters: Mapping[str, Any], order_by: tuple[str, ...] = ()) -> Explanation:
    """
    Return where ``model.objects.filter(**filters)`` would go. The map is read, the query is not sent.

    Raises:
        NotSharded: the model is not sharded.
        FieldError, ValueError, ValidationError: the filters are not the model's.
    """
    entry = registry.get(model)
    queryset = model._default_manager.filter(**filters).order_by(*order_by)
    proof = _proof(queryset)
    buckets = proof.buckets
    bucket_map = cluster_map.current()
    shards = bucket_map.aliases if buckets is None else bucket_map.owners_of(buckets)
    tier, why, refusal = _decided(entry, queryset, proof, shards)
    return Explanation(
        model=entry.label,
        filters=dict(filters),
        buckets=None if buckets is None else tuple(sorted(buckets)),
        shards=shards if tier else (),
        epoch=bucket_map.epoch,
        tier=tier,
        why=why,
        refusal=refusal,
        sql=_sql(queryset, shards[0]) if shards and tier else None,
    )


@dataclass(frozen=True, slots=True)
class _Proof:
    """What is known of a query's buckets, and from where."""

    buckets: routing.Buckets
    source: str = "The filters prove"
    nothing: str = "The filters match no row, so no database is asked."
    #: The query names one bucket at most, whatever is stored.
    single: bool = True


def _proof(queryset: QuerySet[Any]) -> _Proof:
    """Return what the filters prove; a lookup that they name is asked where its rows are today."""
    buckets = routing.buckets_of(queryset.query)
    match = matching.match(queryset.query) if buckets is None else None
    if match is None or not states.is_built(match.lookup.name):
        return _Proof(buckets)
    found = lookup_reads.buckets(match, connections[DEFAULT_DB_ALIAS])
    name = f"The lookup {match.lookup.name}"
    return _Proof(found, f"{name} names", f"{name} has no such entry, so no shard is asked.", match.single)


def _decided(
    entry: Entry, queryset: QuerySet[Any], known: _Proof, shards: tuple[str, ...]
) -> tuple[str | None, str, str | None]:
    """Return the tier, why it is that one, and why the query as it stands is refused."""
    buckets = known.buckets
    try:
        locality.check(queryset.query, entry, buckets)
    except ShardingError as error:
        return None, "The query reads more than rows of its own buckets.", str(error)
    if buckets is not None and not buckets:
        return NO_SHARD, known.nothing, None
    if known.single and buckets is not None and len(buckets) == 1:
        return ONE_SHARD, f"{known.source} bucket {min(buckets)}, which {shards[0]!r} owns.", None
    if buckets is None:
        proof, refusal = f"The filters do not limit {entry.key}", str(unbounded(entry))
    else:
        proof, refusal = f"{known.source} {len(buckets)} {'bucket' if len(buckets) == 1 else 'buckets'}", None
    planned = None if _planner is None else _planner(_opted_in(queryset))
    if planned is None:
        missing = "Add 'aggregator' to INSTALLED_APPS."
        return None, f"{proof}, and nothing is installed that merges answers.", refusal or missing
    if planned.tier is None:
        return None, f"{proof}, and the answers of several shards cannot be merged.", planned.reason
    return str(planned.tier), f"{proof}; the aggregator merges {planned.reason}.", refusal


def _opted_in(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return the queryset with the mark of fan_out()."""
    marked: Any = queryset.all()
    marked.query.fan_out = True
    return marked  # type: ignore[no-any-return]


def _sql(queryset: QuerySet[Any], alias: str) -> str | None:
    connection = cluster_map.connection_of(alias)
    try:
        sql, params = native_class(connection, "SQLCompiler")(queryset.query, connection, alias).as_sql()
    except EmptyResultSet:
        return None
    return str(sql % tuple(map(_literal, params)))


def _literal(value: Any) -> str:
    """Return a parameter for reading. What the driver makes of it is never seen by anybody but the server."""
    if isinstance(value, (bool, int, float)):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"

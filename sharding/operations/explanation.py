"""
Where a query would go, why, and what is done there, without sending it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

from django.core.exceptions import EmptyResultSet
from django.db import DEFAULT_DB_ALIAS, connections
from django.db.models import QuerySet
from django.db.models.manager import BaseManager

from sharding import cluster_map, locality, reference_models, registry, routing, scopes
from sharding.backends import lookup_reads
from sharding.backends.compilers import asks_every_shard, owned, unbounded
from sharding.errors import ShardingError
from sharding.lookups import matching, states
from sharding.operations.steps import Statement, Steps, grid
from sharding.registry import Entry

ONE_SHARD = "one shard"
ONE_DATABASE = "one database"
NO_SHARD = "no query"
GATHER = "gather"

NO_STEPS = Steps()

#: Buckets named one by one.
NAMED = 12


class Planned(Protocol):
    """What the aggregator says of a query over several buckets."""

    @property
    def tier(self) -> str | None:
        """None where the query is refused; ``reason`` is then the message."""

    @property
    def reason(self) -> str:
        """Why it is that tier."""

    @property
    def shards(self) -> tuple[str, ...]:
        """Who is asked."""

    @property
    def steps(self) -> Steps:
        """What is done."""


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
    #: The buckets that the filters prove; None when they prove nothing, or the model has none.
    buckets: tuple[int, ...] | None
    #: The databases that would be asked.
    shards: tuple[str, ...]
    #: The map's; None where no map is needed.
    epoch: int | None
    tier: str | None
    why: str
    #: Why the query is refused as it stands; what the rest says then needs fan_out(), or does not happen.
    refusal: str | None = None
    steps: Steps = NO_STEPS

    def __str__(self) -> str:
        return grid(iter([("Model", self.model), *self.rows(sql=True)]))

    def rows(self, *, sql: bool) -> Iterator[tuple[str, str]]:
        """Yield what is known as pairs of a heading and a text."""
        if self.epoch is not None:
            yield "Buckets", self._buckets()
        yield "Databases" if self.tier == ONE_DATABASE else "Shards", ", ".join(self.shards) or "-"
        # What is refused as it stands has its tier with the opt-in.
        yield "Tier", f"{self.tier or '-'}{', with fan_out()' if self.refusal and self.tier else ''}"
        yield "Why", self.why
        if self.refusal:
            yield "Refused", self.refusal
        yield from self.steps.rows(sql=sql)

    def _buckets(self) -> str:
        if self.buckets is None:
            return "any"
        named = ", ".join(map(str, self.buckets[:NAMED])) or "none"
        return named if len(self.buckets) <= NAMED else f"{named} and {len(self.buckets) - NAMED} more"


def explain(queryset: QuerySet[Any] | BaseManager[Any]) -> None:
    """
    Print where a queryset would go, why, the SQL, and how the answers of several shards become one.

    The queryset is not sent. A lookup that it names is asked for its buckets.

    Raises:
        TypeError: it is neither a queryset nor a manager.
    """
    print(explanation_of(queryset))


def explanation_of(queryset: QuerySet[Any] | BaseManager[Any]) -> Explanation:
    """
    Return where a queryset of any model would go.

    Raises:
        TypeError: it is neither a queryset nor a manager.
    """
    if not isinstance(queryset, (QuerySet, BaseManager)):
        raise TypeError(f"explain() takes a queryset or a manager, such as Order.objects, not {queryset!r}.")
    asked: Any = queryset.all()
    entry = registry.entry(asked.model)
    if entry is None or asked.db != DEFAULT_DB_ALIAS:
        return _of_one_database(asked, entry)
    return _of_sharded(asked, entry)


def _of_one_database(queryset: QuerySet[Any], entry: Entry | None) -> Explanation:
    alias, label = queryset.db, queryset.model._meta.label
    if entry is not None:
        why = f"using({alias!r}) asks this shard alone, for the rows that are there."
    elif reference_models.is_reference(queryset.model):
        why = f"{label} is a reference model, of which every shard has all rows; {alias!r} answers for itself."
    elif alias == DEFAULT_DB_ALIAS:
        why = f"{label} is a global model, whose rows are in the control database, {alias!r}."
    else:
        why = f"{label} is a global model, and the routers or using() say {alias!r}."
    found = Explanation(label, None, (alias,), None, ONE_DATABASE, why)
    compiler: Any = queryset.query.clone().get_compiler(using=alias)
    return _with_sql(found, compiler)


def _of_sharded(queryset: QuerySet[Any], entry: Entry) -> Explanation:
    bucket_map = cluster_map.current()
    try:
        query = scopes.apply(queryset.query, entry)
    except ShardingError as error:
        why = "A scope is open, and the query is not of its shard key."
        return Explanation(entry.label, None, (), bucket_map.epoch, None, why, str(error))
    proof = _proof(query)
    buckets = proof.buckets
    shards = bucket_map.aliases if buckets is None else bucket_map.owners_of(buckets)
    named = None if buckets is None else tuple(sorted(buckets))
    found = Explanation(entry.label, named, shards, bucket_map.epoch, None, "")
    try:
        locality.check(query, entry, buckets)
    except ShardingError as error:
        if asks_every_shard(query) and not query.is_empty():
            return _merged(found, queryset, proof, entry)
        why = "The query reads more than rows of its own buckets."
        return replace(found, shards=(), why=why, refusal=str(error))
    if buckets is not None and not buckets:
        return replace(found, shards=(), tier=NO_SHARD, why=proof.nothing)
    if proof.single and buckets is not None and len(buckets) == 1:
        why = f"{proof.source} bucket {min(buckets)}, which {shards[0]!r} owns."
        door = connections[DEFAULT_DB_ALIAS]
        compiler = owned("SQLCompiler", query.clone(), shards[0], door, True)
        return _with_sql(replace(found, tier=ONE_SHARD, why=why), compiler)
    return _merged(found, queryset, proof, entry)


@dataclass(frozen=True, slots=True)
class _Proof:
    """What is known of a query's buckets, and from where."""

    buckets: routing.Buckets
    source: str = "The filters prove"
    nothing: str = "The filters match no row, so no database is asked."
    #: The query names one bucket at most, whatever is stored.
    single: bool = True


def _proof(query: Any) -> _Proof:
    """Return what the filters prove; a lookup that they name is asked where its rows are today."""
    buckets = routing.buckets_of(query)
    match = matching.match(query) if buckets is None and not asks_every_shard(query) else None
    if match is None or not states.is_built(match.lookup.name):
        return _Proof(buckets)
    found = lookup_reads.buckets(match, connections[DEFAULT_DB_ALIAS])
    name = f"The lookup {match.lookup.name}"
    return _Proof(found, f"{name} names", f"{name} has no such entry, so no shard is asked.", match.single)


def _merged(found: Explanation, queryset: QuerySet[Any], known: _Proof, entry: Entry) -> Explanation:
    """Return what the aggregator makes of a query over several buckets, and why it is refused as it stands."""
    refusal = None
    if known.buckets is not None:
        number = len(known.buckets)
        proof = f"{known.source} {number} {'bucket' if number == 1 else 'buckets'}"
    else:
        proof = f"The filters do not limit {entry.key}"
        refusal = None if asks_every_shard(queryset.query) else str(unbounded(entry))
    planned = None if _planner is None else _planner(_opted_in(queryset) if refusal else queryset)
    if planned is None:
        why = f"{proof}, and nothing is installed that merges answers."
        return replace(found, shards=(), why=why, refusal=refusal or "Add 'aggregator' to INSTALLED_APPS.")
    if planned.tier is None:
        why = f"{proof}, and the answers of several shards cannot be merged."
        return replace(found, shards=(), why=why, refusal=planned.reason)
    # Rows are gathered because of something; everything else is what is merged.
    why = f"{proof}; {planned.reason if str(planned.tier) == GATHER else f'the aggregator merges {planned.reason}'}."
    return replace(found, tier=str(planned.tier), shards=planned.shards, why=why, refusal=refusal, steps=planned.steps)


def _opted_in(queryset: QuerySet[Any]) -> QuerySet[Any]:
    """Return the queryset with the mark of fan_out()."""
    marked: Any = queryset.all()
    marked.query.fan_out = True
    return marked  # type: ignore[no-any-return]


def _with_sql(found: Explanation, compiler: Any) -> Explanation:
    """Return an explanation with the one statement that a compiler would send."""
    try:
        sql, params = compiler.as_sql()
    except EmptyResultSet:
        return found
    except ShardingError as error:
        why = "The query reads more than rows of its own database."
        return replace(found, shards=(), tier=None, why=why, refusal=str(error))
    return replace(found, steps=Steps((Statement(found.shards, sql, tuple(params)),)))

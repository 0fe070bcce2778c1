"""
How the answers of several shards become one: by which tier, and why; or why not.

Pure: a plan depends on the statement alone, never on where buckets live, so that what is allowed stays allowed when
a bucket moves. The parts are those that Django's compiler has resolved: expressions, without names in them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.db.models import Aggregate, Avg, Count, Func, Max, Min, StdDev, Sum, Variance
from django.db.models.expressions import Col, RawSQL, Star, Subquery, Window
from django.db.models.sql import Query
from django.db.models.sql.constants import INNER
from django.db.models.sql.datastructures import BaseTable
from django.db.models.sql.where import ExtraWhere

from aggregator.refusal import ONE_KEY, cannot_merge
from sharding import registry


class Tier(StrEnum):
    """How an answer is made; the design's words."""

    ONE_SHARD = "one shard"
    MERGE = "merge"
    PARTIALS = "partials"
    GATHER = "gather"


@dataclass(frozen=True, slots=True)
class Plan:
    """What is done with one statement, and why."""

    tier: Tier
    reason: str
    #: Different shards may return equal rows, of which DISTINCT keeps one.
    distinct: bool = False


@dataclass(frozen=True, slots=True)
class Parts:
    """The clauses of a statement, with everything in them resolved."""

    query: Query
    select: Sequence[Any]
    order_by: Sequence[Any] = ()
    having: Any = None
    groups: Sequence[Any] = ()
    #: The statement filters by a window function.
    qualify: Any = None


#: Aggregates of a whole that can be computed from those of its parts.
DECOMPOSABLE = (Count, Sum, Min, Max, Avg, StdDev, Variance)
#: Others are known by name: they are of Django 6.1, or need psycopg to be imported.
NAMED_IN = frozenset({"django.contrib.postgres.aggregates.general", "django.db.models.aggregates"})
BITWISE = frozenset({"BitAnd", "BitOr", "BitXor"})
LOGICAL = frozenset({"BoolAnd", "BoolOr"})
LISTING = frozenset({"ArrayAgg", "JSONBAgg", "StringAgg"})

#: Aggregates of the databases, which Func() hides from Django: it would take them for functions of one row.
AGGREGATES = re.compile(
    "ANY_VALUE|ARRAY_AGG|AVG|BIT_(AND|OR|XOR)|BOOL_(AND|OR)|COUNT|EVERY|GROUP_CONCAT|JSONB?_(OBJECT_)?AGG|MAX|MIN"
    "|(STDDEV|VAR)(_POP|_SAMP)?|STRING_AGG|SUM|TOTAL|VARIANCE"
)

WINDOW = "a window function"

#: The column by which Django's prefetch_related() finds the owner of a many-to-many row, written as extra(select=…).
PREFETCHED = "_prefetch_related_val_"


def plan(parts: Parts) -> Plan:
    """
    Return the plan for a SELECT statement.

    Raises:
        CannotMerge: no tier answers it exactly.
    """
    query = parts.query
    windows = _refuse_constructs(parts)
    leaves = list(aggregates([*parts.select, *parts.order_by, parts.having]))
    if not leaves and not parts.groups:
        if query.distinct and _disjoint(query, parts.select) is None:
            return Plan(Tier.MERGE, "rows, of which equal ones of different shards count once", distinct=True)
        return Plan(Tier.MERGE, "rows")
    own = _disjoint(query, parts.groups)
    if own is not None:
        distinct = query.distinct and _disjoint(query, parts.select) is None
        return Plan(Tier.MERGE, f"groups, of which none spans two shards since {own} is grouped by", distinct=distinct)
    if windows:
        raise cannot_merge(query, WINDOW, ONE_KEY)
    if query.select_for_update:
        raise cannot_merge(query, "select_for_update() with aggregates", "Lock the rows by a query of their own.")
    _refuse_leaves(query, leaves)
    if not parts.groups:
        return Plan(Tier.PARTIALS, "aggregates over all rows")
    return Plan(Tier.PARTIALS, "groups that may have rows on every shard")


def plan_outer(query: Any, inner: Plan, *, sliced: bool) -> Plan:
    """
    Return the plan for aggregates over the rows of an inner query, of which ``inner`` is the plan.

    Raises:
        CannotMerge: no tier answers it exactly.
    """
    outer = list(query.annotation_select.values())
    if counts_rows(outer):
        return Plan(Tier.PARTIALS, f"the number of rows of an inner query ({inner.tier}: {inner.reason})")
    if inner.tier is not Tier.MERGE or inner.distinct or sliced:
        what = "a slice" if sliced else "DISTINCT rows" if inner.distinct else "groups that span several shards"
        raise cannot_merge(query, f"an aggregate over {what}", ONE_KEY)
    leaves = list(aggregates(outer))
    _refuse_leaves(query, leaves)
    return Plan(Tier.PARTIALS, f"aggregates over the rows of an inner query ({inner.reason})")


def counts_rows(select: Sequence[Any]) -> bool:
    """Return whether nothing but COUNT(*) is selected."""
    return all(
        type(each) is Count and isinstance(each.get_source_expressions()[0], Star) and not each.filter
        for each in select
    )


def aggregates(expressions: Iterable[Any]) -> Iterator[Any]:
    """Yield the aggregates in expressions, the outermost ones."""
    for each in expressions:
        if type(each) is Col:
            continue
        if isinstance(each, Aggregate):
            yield each
        elif isinstance(each, Window):
            # What it is about is computed over rows, not over groups.
            function, *others = sources(each)
            yield from aggregates([*sources(function), *others])
        elif not isinstance(each, (Subquery, Query)):
            yield from aggregates(sources(each))


def sources(node: Any) -> list[Any]:
    """Return the expressions directly inside an expression or a WHERE clause."""
    return list(node.get_source_expressions()) if hasattr(node, "get_source_expressions") else []


def is_bitwise(leaf: Any) -> bool:
    """Return whether an aggregate combines the bits of its values."""
    return _is_named(leaf, BITWISE)


def is_listing(leaf: Any) -> bool:
    """Return whether an aggregate lists its values, whose order then matters."""
    return _is_named(leaf, LISTING)


def condition_of(leaf: Any) -> Any:
    """Return the condition of an aggregate's filter, or None; Django 6 wraps it."""
    return getattr(leaf.filter, "condition", leaf.filter)


def filter_of(leaf: Any, condition: Any) -> Any:
    """Return the filter that an aggregate has with another condition than that of its own filter."""
    return condition if condition_of(leaf) is leaf.filter else type(leaf.filter)(condition)


def own_raw_sql(query: Query) -> set[RawSQL]:
    """Return the raw SQL that Django itself puts into a query."""
    return {RawSQL(*args) for alias, args in query.extra.items() if alias.startswith(PREFETCHED)}


def names_bucket(query: Query, expression: Any, *, with_null: bool = True) -> bool:
    """
    Return whether equal values of an expression in two rows mean that the rows lie in the same bucket.

    A column that may be NULL does not, unless NULL does not count: rows without a value are everywhere.
    """
    if not isinstance(expression, Col):
        return False
    entry = registry.entry(expression.target.model)
    if entry is None or expression.target.attname not in entry.columns:
        return False
    if not with_null:
        return True
    join = query.alias_map.get(expression.alias)
    always = isinstance(join, BaseTable) or getattr(join, "join_type", None) == INNER
    return always and not expression.target.null


def _disjoint(query: Query, expressions: Iterable[Any]) -> str | None:
    """Return the name of a column that keeps equal rows on one shard, or None."""
    return next((each.target.name for each in _columns(expressions) if names_bucket(query, each)), None)


def _columns(expressions: Iterable[Any]) -> Iterator[Col]:
    for each in expressions:
        if isinstance(each, Col):
            yield each
        elif hasattr(each, "get_cols"):
            yield from each.get_cols()


def _refuse_constructs(parts: Parts) -> bool:
    """Refuse what no shard can do for its own rows, and return whether there are windows, each within one bucket."""
    query = parts.query
    windows = False
    if query.combinator:
        raise cannot_merge(query, f"{query.combinator}()", "Combine the results in Python.")
    if query.distinct_fields:
        raise cannot_merge(query, f"distinct({', '.join(map(repr, query.distinct_fields))})", ONE_KEY)
    own = own_raw_sql(query)
    if len(query.extra) > len(own) or query.extra_tables or query.extra_order_by:
        raise cannot_merge(query, "extra()", "Write it as an annotation or a filter.")
    if parts.qualify is not None:
        raise cannot_merge(query, "a filter by a window function", ONE_KEY)
    for each in _everything([*parts.select, *parts.order_by, parts.having, query.where]):
        if isinstance(each, Window):
            windows = True
            if each.partition_by is None or _disjoint(query, sources(each.partition_by)) is None:
                raise cannot_merge(query, WINDOW, ONE_KEY)
        if isinstance(each, (RawSQL, ExtraWhere)) and each not in own:
            raise cannot_merge(query, "raw SQL in a query", "Write it with Django's expressions.")
        function = _function_of(each)
        if function and AGGREGATES.fullmatch(function):
            raise cannot_merge(query, f"{function}() in Func()", "Write it with Django's aggregates.")
    return windows


def _function_of(expression: Any) -> str:
    """Return what Func() calls, in capitals; of anything else and of Django's aggregates nothing."""
    if not isinstance(expression, Func) or isinstance(expression, Aggregate):
        return ""
    return str(expression.extra.get("function", expression.function)).upper()


def _everything(expressions: Iterable[Any]) -> Iterator[Any]:
    for each in expressions:
        # Nearly all are columns.
        if type(each) is Col or each is None or isinstance(each, (Col, Subquery, Query)):
            continue
        yield each
        yield from _everything(sources(each))


def _is_named(leaf: Any, names: frozenset[str]) -> bool:
    return type(leaf).__module__ in NAMED_IN and type(leaf).__name__ in names


def _refuse_leaves(query: Query, leaves: Iterable[Any]) -> None:
    for leaf in leaves:
        extra = getattr(leaf, "extra", None)
        known = type(leaf) in DECOMPOSABLE or _is_named(leaf, BITWISE | LOGICAL | LISTING)
        is_ordered = getattr(leaf, "order_by", None) is not None and not is_listing(leaf)
        if not known or extra or is_ordered:
            raise cannot_merge(query, f"{type(leaf).__name__}()", ONE_KEY)

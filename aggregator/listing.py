"""
Aggregates that list their values in an order (PostgreSQL): the values come from the shards, each a group of its own.
"""

from __future__ import annotations

from typing import Any

from django.db.models import BooleanField, Case, Value, When
from django.db.models.expressions import Col, OrderBy, RawSQL

from aggregator import ordering
from aggregator.planner import condition_of, filter_of
from aggregator.refusal import ONE_KEY, cannot_merge

#: Types of which values that are equal in order are the same.
SAME = frozenset({"smallint", "integer", "bigint", "boolean", "date", "timestamp with time zone", "uuid", "bytea"})
REMEDY = "Order by the primary key or by what is listed, without joins to many, or limit the query to one shard key."


def over_parts(builder: Any, leaf: Any) -> Any:
    """
    Return a listing aggregate over columns of the partial results, which are added to their groups.

    Raises:
        CannotMerge: its order leaves open which value comes first, or a row cannot be told from another.
    """
    keys = _primary_key(builder.compiler)
    _require_exact(builder.compiler, leaf, keys)
    if not leaf.distinct:
        for key in keys:
            builder.key(key)
    listed, *delimiters, _, order_by = leaf.get_source_expressions()
    order_by = order_by.copy()
    order_by.set_source_expressions([_over(builder, each) for each in order_by.get_source_expressions()])
    copy = leaf.copy()
    copy.set_source_expressions([_column(builder, listed), *delimiters, _filter(builder, leaf), order_by])
    return copy


def _require_exact(compiler: Any, leaf: Any, keys: list[Any]) -> None:
    listed, *delimiters, _, order_by = leaf.get_source_expressions()
    name, wanted = type(leaf).__name__, [] if order_by is None else order_by.get_source_expressions()
    if compiler.connection.vendor != "postgresql" or any(each.contains_column_references for each in delimiters):
        raise cannot_merge(compiler.query, f"{name}()", ONE_KEY)
    by_itself = listed in map(_ordered, wanted) and _is_same(compiler, listed)
    columns = {(each.alias, each.target) for each in map(_ordered, wanted) if isinstance(each, Col)}
    by_key = keys and columns.issuperset((key.alias, key.target) for key in keys)
    if not by_itself and not by_key:
        raise cannot_merge(compiler.query, f"{name}() in an order that is not total", REMEDY)
    if not keys and not leaf.distinct:
        raise cannot_merge(compiler.query, f"{name}() over rows of joins to many", REMEDY)


def _ordered(order: Any) -> Any:
    """Return what is ordered by: Django leaves it bare without a direction."""
    return order.expression if isinstance(order, OrderBy) else order


def _over(builder: Any, order: Any) -> Any:
    if not isinstance(order, OrderBy):
        return _column(builder, order)
    copy = order.copy()
    copy.set_source_expressions([_column(builder, order.expression)])
    return copy


def _column(builder: Any, expression: Any) -> Any:
    return RawSQL(builder.key(expression), (), output_field=expression.output_field)


def _filter(builder: Any, leaf: Any) -> Any:
    if leaf.filter is None:
        return None
    holds = Case(When(condition_of(leaf), then=Value(True)), default=Value(False), output_field=BooleanField())
    return filter_of(leaf, _column(builder, holds))


def _primary_key(compiler: Any) -> list[Any]:
    """Return the columns that tell every row of a statement from the others; none when a join repeats rows."""
    query = compiler.query
    used = [alias for alias, count in query.alias_refcount.items() if count]
    joins = [query.alias_map[alias] for alias in used if query.alias_map[alias].parent_alias is not None]
    alone = all(join.join_field.many_to_one or join.join_field.one_to_one for join in joins)
    if query.base_table not in used or not alone:
        return []
    return [Col(query.base_table, each) for each in query.model._meta.pk_fields]


def _is_same(compiler: Any, expression: Any) -> bool:
    kind = ordering.type_of(compiler, expression)
    return kind in SAME or (kind in ordering.TEXT and ordering.collation_of(expression) is None)

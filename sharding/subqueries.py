"""
The subqueries of a query, and whether one reads rows of the outer row's own bucket.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import CharField, ForeignKey, IntegerField, Model, TextField
from django.db.models.expressions import Col, Subquery
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.db.models.sql.where import WhereNode

from sharding import registry, routing
from sharding.registry import Entry


def subqueries_of(query: Query) -> Iterator[Query]:
    """Yield the subqueries of a query, the outermost ones: of its clauses, and of the values that an UPDATE sets."""
    yield from within(query.where)
    for expression in query.annotations.values():
        yield from within(expression)
    ordering: Any
    for ordering in query.order_by:
        if any(True for _ in within(ordering)):
            # It is compiled unresolved, so that OuterRef does not name a column of this query yet.
            yield from within(ordering.resolve_expression(query.clone()))
    for join in query.alias_map.values():
        relation = getattr(join, "filtered_relation", None)
        if relation is not None:
            yield from within(relation.resolved_condition)
    # What an UPDATE sets.
    for _, _, value in getattr(query, "values", ()):
        yield from within(value)


def within(node: Any) -> Iterator[Query]:
    """Yield the subqueries of an expression, the outermost ones."""
    if isinstance(node, Query):
        yield node
    elif isinstance(node, Subquery):
        yield node.query
    elif isinstance(node, WhereNode):
        for child in node.children:
            yield from within(child)
    elif isinstance(node, (list, tuple)):
        for each in node:
            # The rows of a composite key are tuples in a list.
            if hasattr(each, "resolve_expression") or isinstance(each, (list, tuple)):
                yield from within(each)
    elif hasattr(node, "rhs"):
        # A lookup: nearly always a column and a plain value.
        if hasattr(node.rhs, "resolve_expression") or isinstance(node.rhs, (list, tuple)):
            yield from within(node.rhs)
        if not isinstance(node.lhs, Col):
            yield from within(node.lhs)
    elif hasattr(node, "get_source_expressions"):
        for expression in node.get_source_expressions():
            if expression is not None:
                yield from within(expression)


def is_correlated(inner: Query, entry: Entry) -> bool:
    """Return whether the inner rows are in the bucket of the outer row, by an ANDed equality of two columns."""
    return any(_equates(child, inner, entry) for child in routing.anded(inner.where))


def _equates(node: Any, inner: Query, entry: Entry) -> bool:
    if not isinstance(node, Exact) or not isinstance(node.lhs, Col) or not isinstance(node.rhs, Col):
        return False
    sides = {side.alias in inner.alias_map: side for side in (node.lhs, node.rhs)}
    if len(sides) != 2:
        return False
    own, outer = _rule(sides[True]), _rule(sides[False])
    return own is not None and own == outer


def _rule(column: Col) -> tuple[str, str] | None:
    """Return how a column names the bucket; equal values of two columns with the same rule name the same one."""
    model: type[Model] = column.target.model
    entry = registry.entry(model)
    rule = None if entry is None else entry.rule(column.target.attname)
    return None if rule is None else (rule, _kind(column.target))


def _kind(field: Any) -> str:
    """Return what the column holds: a database may find 42 and '42' equal, and they are in different buckets."""
    while isinstance(field, ForeignKey):
        field = field.target_field
    if isinstance(field, IntegerField):
        return "number"
    return "text" if isinstance(field, CharField | TextField) else str(field.get_internal_type())

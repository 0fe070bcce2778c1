"""
Can a statement be answered where its rows are? Its joins and subqueries must stay inside the rows' own buckets.

A join over a co-located foreign key always does. A subquery does when it is correlated by a column that names the
bucket, or when it and the outer query are limited to the same one bucket. Where buckets live today plays no part.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import CharField, ForeignKey, IntegerField, Model, TextField
from django.db.models.expressions import Col, Subquery
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.db.models.lookups import Exact
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable
from django.db.models.sql.where import AND, WhereNode

from sharding import registry, routing
from sharding.errors import CannotMerge, GlobalJoin
from sharding.registry import Entry
from sharding.routing import Buckets


def check(query: Query, entry: Entry, buckets: Buckets) -> None:
    """
    Check that ``query``, whose rows lie in ``buckets``, reads nothing else than rows of those same buckets.

    Raises:
        GlobalJoin: it joins or contains a global model, whose table is in the control database.
        CannotMerge: it joins or contains sharded rows that may lie elsewhere.
    """
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        check(inner, entry, buckets)
        # An aggregate over a subquery's rows may itself ask another one.
        _check_subqueries(query, entry, buckets)
        return
    if query.combinator:
        _check_combined(query, entry, buckets)
        return
    if len(query.alias_map) > 1:
        check_joins(query, entry)
    if query.extra_tables:
        raise _cannot(entry, "extra(tables=…)", "Query the models of those tables instead.")
    _check_subqueries(query, entry, buckets)


def check_joins(query: Query, entry: Entry | None) -> None:
    """Check every joined table of a query; ``entry`` is None for the query of a global model."""
    sharded = registry.tables()
    for alias, join in query.alias_map.items():
        if not query.alias_refcount.get(alias):
            continue
        if (join.table_name in sharded) != (entry is not None):
            raise _global_join(query, join.table_name)
        if entry is not None and not isinstance(join, BaseTable) and not _co_located(join.join_field):
            raise _cannot(
                entry,
                f"the join to {sharded[join.table_name]}",
                "Its rows may lie in other buckets; query them on their own.",
            )


def check_value(value: Any, query: Query, entry: Entry, bucket: int) -> None:
    """Check that an expression given to a new row of ``bucket`` reads rows of that bucket only."""
    for subquery in _within(value):
        _check_subquery(subquery, query, entry, frozenset({bucket}))


def check_compiled(query: Query, klass_info: Any, entry: Entry | None) -> None:
    """Check the joins of a query at the moment when they are written into its FROM clause, unless routing is off."""
    if len(query.alias_map) > 1 and routing.native_alias() is None:
        if query.select_related:
            _check_selected(query, klass_info, entry)
        check_joins(query, entry)


def check_parts(query: Query) -> None:
    """Check that a union, intersection or difference of global rows has no part of sharded ones."""
    if routing.native_alias() is not None:
        return
    for each in query.combined_queries:
        if registry.entry(each.model) is not None:
            raise _global_join(query, each.model._meta.db_table)


def _check_selected(query: Query, klass_info: Any, entry: Entry | None) -> None:
    for related in (klass_info or {}).get("related_klass_infos", ()):
        model = related["model"]
        other = registry.entry(model)
        if (other is None) != (entry is None):
            raise _global_join(query, model._meta.db_table)
        if entry is not None and not _co_located(related["field"]):
            raise _cannot(entry, f"select_related({related['field'].name!r})", "Use prefetch_related().")
        _check_selected(query, related, other)


def _co_located(join_field: Any) -> bool:
    field = join_field.field if isinstance(join_field, ForeignObjectRel) else join_field
    if not isinstance(field, ForeignKey):
        return False
    holder = registry.entry(field.model)
    return holder is not None and field.attname in holder.columns


def _check_combined(query: Query, entry: Entry, buckets: Buckets) -> None:
    for each in query.combined_queries:
        other = registry.entry(each.model)
        if other is None:
            raise _global_join(query, each.model._meta.db_table)
        check(each, other, routing.buckets_of(each))
    if buckets is None or len(buckets) != 1:
        raise _cannot(
            entry,
            f"{query.combinator}()",
            "Limit every part to one and the same shard key, or combine the results in Python.",
        )


def _check_subqueries(query: Query, entry: Entry, buckets: Buckets) -> None:
    for subquery in _subqueries(query):
        _check_subquery(subquery, query, entry, buckets)


def _check_subquery(inner: Query, outer: Query, outer_entry: Entry, buckets: Buckets) -> None:
    if inner.model is None:
        return
    entry = registry.entry(inner.model)
    if entry is None:
        raise _global_join(outer, inner.model._meta.db_table)
    # exclude() over a relation asks a subquery of this model whose first table is another one's.
    check_joins(inner, entry)
    if _correlated(inner, entry):
        check(inner, entry, buckets)
        return
    own = routing.buckets_of(inner)
    if own == routing.NO_ROW:
        return
    if own is None or own != buckets or len(own) != 1:
        raise _cannot(
            outer_entry,
            f"the subquery over {entry.label}",
            "Limit both queries to the same shard key, correlate them by it (OuterRef), "
            "or evaluate the inner one first: list(inner).",
        )
    check(inner, entry, own)


def _correlated(inner: Query, entry: Entry) -> bool:
    """Return whether the inner rows are in the bucket of the outer row, by an ANDed equality of two columns."""
    return any(_equates(child, inner, entry) for child in _anded(inner.where))


def _anded(where: WhereNode) -> Iterator[Any]:
    if where.negated or (where.connector != AND and len(where.children) > 1):
        return
    for child in where.children:
        if isinstance(child, WhereNode):
            yield from _anded(child)
        else:
            yield child


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


def _subqueries(query: Query) -> Iterator[Query]:
    yield from _within(query.where)
    for expression in query.annotations.values():
        yield from _within(expression)
    ordering: Any
    for ordering in query.order_by:
        if any(True for _ in _within(ordering)):
            # It is compiled unresolved, so that OuterRef does not name a column of this query yet.
            yield from _within(ordering.resolve_expression(query.clone()))
    for join in query.alias_map.values():
        relation = getattr(join, "filtered_relation", None)
        if relation is not None:
            yield from _within(relation.resolved_condition)
    # What an UPDATE sets.
    for _, _, value in getattr(query, "values", ()):
        yield from _within(value)


def _within(node: Any) -> Iterator[Query]:
    if isinstance(node, Query):
        yield node
    elif isinstance(node, Subquery):
        yield node.query
    elif isinstance(node, WhereNode):
        for child in node.children:
            yield from _within(child)
    elif isinstance(node, (list, tuple)):
        for each in node:
            if hasattr(each, "resolve_expression"):
                yield from _within(each)
    elif hasattr(node, "rhs"):
        # A lookup: nearly always a column and a plain value.
        if hasattr(node.rhs, "resolve_expression") or isinstance(node.rhs, (list, tuple)):
            yield from _within(node.rhs)
        if not isinstance(node.lhs, Col):
            yield from _within(node.lhs)
    elif hasattr(node, "get_source_expressions"):
        for expression in node.get_source_expressions():
            if expression is not None:
                yield from _within(expression)


def _global_join(query: Query, table: str) -> GlobalJoin:
    model = query.model
    label = model._meta.label if model is not None else "raw"
    tables = sorted({join.table_name for join in query.alias_map.values()} | {table})
    return GlobalJoin(
        f"This {label} query joins {table!r}, and sharded and global tables live on different servers. "
        f"Ask for the related rows in a query of their own (for example by prefetch_related()).",
        model=label,
        tables=tables,
    )


def _cannot(entry: Entry, construct: str, remedy: str) -> CannotMerge:
    return CannotMerge(
        f"This {entry.label} query cannot be answered inside one bucket because of {construct}. {remedy}",
        model=entry.label,
        construct=construct,
    )

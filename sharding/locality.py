"""
Can a statement be answered where its rows are? Its joins and subqueries must stay inside the rows' own buckets.

A join over a co-located foreign key always does. A subquery does when it is correlated by a column that names the
bucket, or when it and the outer query are limited to the same one bucket. Where buckets live today plays no part.
The tables of reference models are whole on every database, so they may be read by any statement.
"""

from __future__ import annotations

from typing import Any

from django.db.models import ForeignKey
from django.db.models.fields.reverse_related import ForeignObjectRel
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable

from sharding import reference_models, registry, routing
from sharding.errors import CannotMerge, GlobalJoin
from sharding.registry import Entry
from sharding.routing import Buckets
from sharding.subqueries import is_correlated, subqueries_of, within


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
    """Check every joined table of a query; ``entry`` is None for a query that the control database answers."""
    sharded, everywhere = registry.tables(), reference_models.tables()
    for alias, join in query.alias_map.items():
        if not query.alias_refcount.get(alias) or join.table_name in everywhere:
            continue
        if (join.table_name in sharded) != (entry is not None):
            raise _global_join(query, join.table_name)
        if entry is not None and not isinstance(join, BaseTable) and not _co_located(join.join_field):
            raise _cannot_join(entry, sharded[join.table_name])


def is_inside(join: Any) -> bool:
    """Return whether a join finds the rows to which it leads on the shard where it begins."""
    if join.filtered_relation is not None:
        return False
    return join.table_name in reference_models.tables() or _co_located(join.join_field)


def check_value(value: Any, query: Query, entry: Entry, bucket: int) -> None:
    """Check that an expression given to a new row of ``bucket`` reads rows of that bucket only."""
    for subquery in within(value):
        _check_subquery(subquery, query, entry, frozenset({bucket}))


def bucket_of_subqueries(query: Query) -> int | None:
    """
    Return the bucket of all sharded rows that a query without a model reads, or None where there is no single one.

    Django asks such a query whether a condition holds for a row: of a unique constraint with a condition, for one.

    Raises:
        GlobalJoin: it contains rows of a global model as well.
        CannotMerge: it contains rows of other buckets as well.
    """
    for subquery in subqueries_of(query):
        entry = registry.entry(subquery.model)
        if entry is None:
            continue
        buckets = routing.buckets_of(subquery)
        if buckets is None or len(buckets) != 1:
            return None
        _check_subqueries(query, entry, buckets)
        (bucket,) = buckets
        return bucket
    return None


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
        if reference_models.is_reference(model):
            _check_selected(query, related, entry)
            continue
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
        if other is not None:
            check(each, other, routing.buckets_of(each))
        elif reference_models.is_reference(each.model):
            _check_reference(each, entry, buckets)
        else:
            raise _global_join(query, each.model._meta.db_table)
    if buckets is None:
        remedy = "Limit every part to shard keys, or ask every shard with aggregator.fan_out()."
        raise _cannot(entry, f"{query.combinator}()", remedy)


def _check_subqueries(query: Query, entry: Entry, buckets: Buckets) -> None:
    for subquery in subqueries_of(query):
        _check_subquery(subquery, query, entry, buckets)


def _check_subquery(inner: Query, outer: Query, outer_entry: Entry, buckets: Buckets) -> None:
    if inner.model is None:
        return
    if inner.combinator:
        # It shows the clauses of its first part, which prove nothing of the others.
        for part in inner.combined_queries:
            _check_subquery(part, outer, outer_entry, buckets)
        return
    entry = registry.entry(inner.model)
    if entry is None and not reference_models.is_reference(inner.model):
        raise _global_join(outer, inner.model._meta.db_table)
    if entry is None or _reads_reference_tables_only(inner):
        _check_reference(inner, outer_entry, buckets)
        return
    # exclude() over a relation asks a subquery of this model whose first table is another one's.
    check_joins(inner, entry)
    if is_correlated(inner, entry):
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


def _check_reference(query: Query, entry: Entry, buckets: Buckets) -> None:
    """Check a subquery or a part of a query for ``entry`` that begins with reference tables: it goes no further."""
    for part in query.combined_queries:
        _check_subquery(part, query, entry, buckets)
    sharded, everywhere = registry.tables(), reference_models.tables()
    for alias, join in query.alias_map.items():
        if query.alias_refcount.get(alias) and join.table_name in sharded:
            raise _cannot_join(entry, sharded[join.table_name])
        if query.alias_refcount.get(alias) and join.table_name not in everywhere:
            raise _global_join(query, join.table_name)
    _check_subqueries(query, entry, buckets)


def _reads_reference_tables_only(query: Query) -> bool:
    """Return whether nothing of the query's own model is left in it, as after exclude() over a relation."""
    read = {join.table_name for alias, join in query.alias_map.items() if query.alias_refcount.get(alias)}
    return bool(read) and read <= reference_models.tables().keys()


def _global_join(query: Query, table: str) -> GlobalJoin:
    model = query.model
    label = model._meta.label if model is not None else "raw"
    tables = sorted({join.table_name for join in query.alias_map.values()} | {table})
    where = "sharded and global tables live on different servers"
    if model is not None and reference_models.is_reference(model) and table in registry.tables():
        where = "a query of a reference model is answered by the control database, which has no sharded rows"
    return GlobalJoin(
        f"This {label} query joins {table!r}, and {where}. "
        f"Ask for the related rows in a query of their own (for example by prefetch_related()).",
        model=label,
        tables=tables,
    )


def _cannot_join(entry: Entry, label: str) -> CannotMerge:
    return _cannot(entry, f"the join to {label}", "Its rows may lie in other buckets; query them on their own.")


def _cannot(entry: Entry, construct: str, remedy: str) -> CannotMerge:
    return CannotMerge(
        f"This {entry.label} query cannot be answered inside one bucket because of {construct}. {remedy}",
        model=entry.label,
        construct=construct,
    )

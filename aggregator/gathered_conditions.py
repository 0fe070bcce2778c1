"""
Which rows of a table a part of a statement can need at most, as a condition that every shard evaluates by itself.

A row is needed only if it meets the conditions of the WHERE clause that are about it alone, and if the joins inside its
own bucket make rows with it that meet those about all of these tables.
"""

from __future__ import annotations

from collections.abc import Iterator, Set
from typing import Any

from django.apps import apps
from django.core.exceptions import EmptyResultSet, FullResultSet
from django.db.models import Aggregate
from django.db.models.expressions import Col, RawSQL, Subquery, Window
from django.db.models.functions import Random
from django.db.models.sql import Query
from django.db.models.sql.constants import INNER
from django.db.models.sql.datastructures import BaseTable
from django.db.models.sql.where import AND, ExtraWhere, WhereNode

from aggregator.compiled import Sql
from aggregator.planner import sources
from sharding import locality, registry

#: The name of a table in the statement that fetches its rows; no alias of Django's is like it.
ROW = "gathered"
NOTHING: Sql = ("0 = 1", ())


def condition_of(compiler: Any, alias: str) -> Sql | None:
    """Return the condition that every needed row of a joined table meets, or None, if all may be needed."""
    join = compiler.query.alias_map[alias]
    if not isinstance(join, BaseTable) and join.join_type != INNER:
        # A row that does not meet it would be missing, which is another thing than not to be counted.
        return None
    try:
        found = _compiled(compiler, [node.relabeled_clone({alias: ROW}) for node in _about(compiler, {alias})])
        together = _joined_inside(compiler.query)
        is_sharded = join.table_name in registry.tables()
        conditions = _compiled(compiler, list(_about(compiler, together)))
        if is_sharded and alias in together and len(conditions) > len(found):
            found.append(_finding_others(compiler, alias, together, conditions))
    except EmptyResultSet:
        return NOTHING
    return joined(found, " AND ") if found else None


def conjuncts(where: Any) -> Iterator[Any]:
    """Yield the conditions that a WHERE clause demands, all of them."""
    if where is None:
        return
    if isinstance(where, WhereNode) and not where.negated and (where.connector == AND or len(where.children) == 1):
        for child in where.children:
            yield from conjuncts(child)
    else:
        yield where


def reads_only(node: Any, aliases: Set[str]) -> bool:
    """Return whether a condition depends on nothing else than rows of some joined tables."""
    columns = list(_leaves(node))
    return bool(columns) and all(isinstance(each, Col) and each.alias in aliases for each in columns)


def joined(conditions: list[Sql], connector: str) -> Sql:
    if len(conditions) == 1:
        return conditions[0]
    sql = connector.join(f"({sql})" for sql, _ in conditions)
    return sql, tuple(param for _, params in conditions for param in params)


def _about(compiler: Any, aliases: Set[str]) -> Iterator[Any]:
    return (node for node in conjuncts(compiler.where) if reads_only(node, aliases))


def _compiled(compiler: Any, nodes: list[Any]) -> list[Sql]:
    found: list[Sql] = []
    for node in nodes:
        try:
            sql, params = compiler.compile(node)
        except FullResultSet:
            continue
        found.append((sql, tuple(params)))
    return found


def _joined_inside(query: Any) -> Set[str]:
    """Return the aliases that joins inside one bucket, or to reference tables, connect with the first."""
    found: set[str] = set()
    for alias, join in query.alias_map.items():
        if not query.alias_refcount[alias]:
            continue
        if isinstance(join, BaseTable):
            # A query has one; exclude() makes others, without an own one.
            if found:
                return frozenset()
            found.add(alias)
        elif join.parent_alias in found and locality.is_inside(join):
            found.add(alias)
    return found


def _finding_others(compiler: Any, alias: str, together: Set[str], conditions: list[Sql]) -> Sql:
    """Return the condition of a row that it is joined with rows which meet the conditions about them."""
    query, quote = compiler.query, compiler.connection.ops.quote_name
    tables = [compiler.compile(join) for name, join in query.alias_map.items() if name in together]
    where, params = joined(conditions, " AND ")
    fields = _model(query.alias_map[alias])._meta.pk_fields
    named = ", ".join(compiler.compile(Col(alias, field))[0] for field in fields)
    rows = f"SELECT {named} FROM {' '.join(sql for sql, _ in tables)}"
    own = f"({', '.join(f'{quote(ROW)}.{quote(field.column)}' for field in fields)})"
    of_tables = tuple(param for _, params_of in tables for param in params_of)
    return f"{own} IN ({rows} WHERE {where})", (*of_tables, *params)


def _model(join: Any) -> Any:
    return apps.get_model(registry.tables()[join.table_name])


def _leaves(node: Any) -> Iterator[Any]:
    """Yield the columns in an expression, and what else it may depend on."""
    if isinstance(node, (Col, Subquery, Query, RawSQL, ExtraWhere, Window, Aggregate, Random)):
        yield node
        return
    rhs = getattr(node, "rhs", None)
    if isinstance(rhs, (list, tuple)) and any(hasattr(each, "resolve_expression") for each in rhs):
        yield node
    if not hasattr(node, "relabeled_clone") and not hasattr(node, "get_source_expressions"):
        yield node
    for source in sources(node):
        if source is not None:
            yield from _leaves(source)

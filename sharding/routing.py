"""
From a query to buckets: what its WHERE clause proves about the rows it can touch.

The answer is a set of buckets, or None when nothing is proved. Keys, ids and co-located foreign keys all name buckets,
so they intersect and unite alike; which shards own the buckets is nobody's business here.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from django.core.exceptions import ValidationError
from django.db.models import Model
from django.db.models.expressions import Col, ColPairs, Value
from django.db.models.lookups import Exact, In, IsNull
from django.db.models.sql import Query
from django.db.models.sql.datastructures import BaseTable
from django.db.models.sql.where import AND, OR, XOR, NothingNode, WhereNode

from sharding import reference_models, registry

Buckets = frozenset[int] | None

NO_ROW: frozenset[int] = frozenset()

#: Types of nearly all keys and ids, for which a lookup's right-hand side needs no closer look.
PLAIN = frozenset({int, str, UUID})

_native: ContextVar[str | None] = ContextVar("sharding_native", default=None)
_migrating: ContextVar[bool] = ContextVar("sharding_migrating", default=False)
_probe: ContextVar[bool] = ContextVar("sharding_probe", default=False)


@contextmanager
def native(alias: str) -> Iterator[None]:
    """Turn routing off: inside, sharded models are read and written on ``alias`` itself, as migrations need it."""
    token = _native.set(alias)
    try:
        yield
    finally:
        _native.reset(token)


def native_alias() -> str | None:
    return _native.get()


@contextmanager
def migrating(alias: str) -> Iterator[None]:
    """Do the same for a migration, which is to see the database's own rows only, and none that it keeps for moves."""
    token = _migrating.set(True)
    try:
        with native(alias):
            yield
    finally:
        _migrating.reset(token)


def is_migrating() -> bool:
    return _migrating.get()


@contextmanager
def probe(*, allowed: bool = True) -> Iterator[None]:
    """Allow reads without a shard key: inside, Django itself asks (unique validation, for one)."""
    token = _probe.set(allowed)
    try:
        yield
    finally:
        _probe.reset(token)


def is_probe() -> bool:
    return _probe.get()


def buckets_of(query: Query) -> Buckets:
    """
    Return the buckets of the rows that ``query`` can touch, or None when its WHERE clause does not limit them.

    The query's model must be sharded. ``inner_query`` (aggregates over a subquery) and set operations are looked into.
    """
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        return buckets_of(inner)
    if query.combinator:
        united: Buckets = NO_ROW
        for each in query.combined_queries:
            united = _either(united, _buckets_of_part(each))
        return united
    found = _node(query.where, False, query.alias_map)
    return NO_ROW if found is None and _wants_null(query) else found


def _wants_null(query: Query) -> bool:
    """Return whether the rows would need NULL for a key or an id, which none has: ``filter(pk=None)``."""
    for condition in anded(query.where):
        if isinstance(condition, IsNull) and condition.rhs is True:
            lhs: Any = condition.lhs
            columns = lhs.get_cols() if isinstance(lhs, ColPairs) else [lhs]
            if all(_is_never_null(each, query) for each in columns):
                return True
    return False


def _is_never_null(column: Any, query: Query) -> bool:
    # In the rows of an outer join, every column may be NULL.
    if not isinstance(column, Col) or not isinstance(query.alias_map.get(column.alias), BaseTable):
        return False
    entry = registry.entry(column.target.model)
    ids = column.target.model._meta.pk_fields
    return entry is not None and (column.target in ids or column.target.attname == entry.key_attname)


def _buckets_of_part(query: Query) -> Buckets:
    if query.model is not None and reference_models.is_reference(query.model):
        # Its rows are in no bucket, and on every shard.
        return NO_ROW
    return buckets_of(query) if registry.entry(query.model) is not None else None


def anded(where: WhereNode) -> Iterator[Any]:
    """Yield the conditions that every row meets, whatever else the clause says; what is ORed or negated proves none."""
    if where.negated or (where.connector != AND and len(where.children) > 1):
        return
    for child in where.children:
        if isinstance(child, WhereNode):
            yield from anded(child)
        else:
            yield child


def narrowed(buckets: Buckets, condition: Any) -> Buckets:
    """Return those of some buckets whose rows can meet a resolved condition as well."""
    return _both(buckets, _node(condition, False, None))


def _both(a: Buckets, b: Buckets) -> Buckets:
    return b if a is None else a if b is None else a & b


def _either(a: Buckets, b: Buckets) -> Buckets:
    return None if a is None or b is None else a | b


def _node(node: Any, negated: bool, aliases: Container[str] | None) -> Buckets:
    """Return the buckets that a condition names by columns of the tables with some aliases (None: of any)."""
    if isinstance(node, WhereNode):
        return _tree(node, negated != node.negated, aliases)
    if isinstance(node, NothingNode):
        return None if negated else NO_ROW
    if negated:
        return None
    if isinstance(node, (Exact, In)):
        return _lookup(node, aliases)
    return None


def _tree(node: WhereNode, negated: bool, aliases: Container[str] | None) -> Buckets:
    """Combine the children; De Morgan carries the negation down to them."""
    connector = node.connector
    if connector == XOR:
        # A row for which an odd number of children hold is in one of them; its negation proves nothing.
        if negated:
            return None
        connector = OR
    elif negated:
        connector = OR if connector == AND else AND
    if not node.children:
        return NO_ROW if negated else None
    children = iter(node.children)
    found = _node(next(children), negated, aliases)
    for child in children:
        if connector == AND:
            found = _both(found, _node(child, negated, aliases))
        elif found is None:
            return None
        else:
            found = _either(found, _node(child, negated, aliases))
    return found


def _lookup(lookup: Exact | In, aliases: Container[str] | None) -> Buckets:
    lhs: Any = lookup.lhs
    rhs: Any = lookup.rhs
    if isinstance(lhs, Value) and isinstance(rhs, Col):
        lhs, rhs = rhs, lhs
    if isinstance(lhs, Col):
        return _column(lhs, rhs, aliases, many=isinstance(lookup, In))
    if isinstance(lhs, ColPairs):
        return _composite(lhs, rhs, aliases, many=isinstance(lookup, In))
    if rhs is True and isinstance(lhs, (Exact, In, WhereNode)):
        return _node(lhs, False, aliases)
    return None


def _column(column: Col, rhs: Any, aliases: Container[str] | None, *, many: bool) -> Buckets:
    if aliases is not None and column.alias not in aliases:
        # It is of the query around this one, and tells nothing of the rows in here.
        return None
    entry = registry.entry(column.target.model)
    if entry is None:
        return None
    bucket_of = entry.columns.get(column.target.attname)
    if bucket_of is None:
        return None
    if type(rhs) in PLAIN and not many:
        bucket = bucket_of(rhs)
        return NO_ROW if bucket is None else frozenset((bucket,))
    values = literals(column.target, rhs, many=many)
    if values is None:
        return None
    found = (bucket_of(value) for value in values if value is not None)
    return frozenset(bucket for bucket in found if bucket is not None)


def literals(field: Any, rhs: Any, *, many: bool) -> list[Any] | None:
    """Return the plain values of a right-hand side, or None when the database computes one of them."""
    if hasattr(rhs, "resolve_expression") and not isinstance(rhs, Value):
        return None
    if many and (isinstance(rhs, (Value, str, bytes)) or not hasattr(rhs, "__iter__")):
        return None
    try:
        values = [
            field.get_prep_value(each.value) if isinstance(each, Value) else each for each in (rhs if many else [rhs])
        ]
    except (TypeError, ValueError, ValidationError):
        # The database decides what such a value equals.
        return None
    if any(hasattr(each, "resolve_expression") or hasattr(each, "as_sql") for each in values):
        return None
    # An unsaved instance on the right is Django's to refuse.
    return None if any(isinstance(each, Model) for each in values) else values


def _composite(pair: ColPairs, rhs: Any, aliases: Container[str] | None, *, many: bool) -> Buckets:
    """A composite primary key names a bucket when one of its columns does."""
    if hasattr(rhs, "resolve_expression") or not hasattr(rhs, "__iter__"):
        return None
    rows = list(rhs) if many else [rhs]
    found: Buckets = None
    for place, column in enumerate(pair.get_cols()):
        values = [row[place] for row in rows if hasattr(row, "__getitem__") and len(row) > place]
        if len(values) != len(rows):
            return None
        prepared = [column.target.get_prep_value(each) if not hasattr(each, "as_sql") else each for each in values]
        found = _both(found, _column(column, prepared, aliases, many=True))
    return found

"""
INSERT, UPDATE and DELETE of rows that have lookups: the entries change with the rows, in one transaction.

The statement itself says which rows it wrote and what they are now (RETURNING), so that expressions, defaults and
conflicts are all the same. An UPDATE that sets no looked-up column, or one row's to the values it has, stays a
statement by itself: what a trigger makes of such a column then is not seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import transaction
from django.db.models.constants import OnConflict
from django.db.models.expressions import Col, ColPairs
from django.db.models.lookups import Exact, IsNull
from django.db.models.sql.where import AND, WhereNode

from sharding import registry, routing
from sharding.backends.settlement import Settlement
from sharding.errors import LookupRefused
from sharding.lookups import entries
from sharding.lookups.declaration import Lookup
from sharding.lookups.entries import StoredRow
from sharding.registry import BUCKET_COLUMN, Entry

INSERT = "SQLInsertCompiler"
UPDATE = "SQLUpdateCompiler"
DELETE = "SQLDeleteCompiler"


class ValueTaken(Exception):
    """A new row has a value that another row of the cluster has. Internal: ``ignore_conflicts`` leaves it out."""


def keeping(name: str, query: Any, native: Any) -> Any:
    """Return the compiler class for a statement on one shard: ``native`` itself where no lookup is concerned."""
    if name not in _KEEPING:
        return native
    entry = registry.entry(query.model)
    if entry is None or not entry.lookups or (name == UPDATE and not _touched(query, entry)):
        return native
    made: Any = _KEEPING[name]
    return _with(native, made)


def refuse_inexact(query: Any, entry: Entry) -> None:
    """
    Check that a bulk_create() with ``update_conflicts`` can only meet rows of the same bucket.

    Raises:
        LookupRefused: it cannot.
    """
    targets = query.unique_fields
    if query.on_conflict == OnConflict.UPDATE and not any(each.attname in entry.columns for each in targets):
        names = ", ".join(each.name for each in targets)
        raise LookupRefused(
            f"bulk_create() of {entry.label} would update the rows with the same {names}, and they may be on another "
            f"shard than the new ones. Add {entry.key!r} to unique_fields, or use update_or_create().",
            model=entry.label,
            lookup=entry.lookups[0].name,
        )


def _touched(query: Any, entry: Entry) -> list[Lookup]:
    """Return the lookups of which an UPDATE sets a column."""
    names = {field.attname for field, _, _ in query.values}
    return [lookup for lookup in entry.lookups if names.intersection(lookup.attnames)]


@contextmanager
def one_transaction(door: Any) -> Iterator[None]:
    """Open an atomic block for a row and its entries, unless one is open."""
    # Where no two-phase commit is to be had, a write by itself may still commit in turn.
    with door.committing_one_by_one(), transaction.atomic(using=door.alias, savepoint=False):
        yield


class _Keeping:
    """What the three statements share: they return what they wrote."""

    #: The same compiler without the entries.
    plain: Any
    query: Any
    connection: Any
    door: Any

    @property
    def _entry(self) -> Entry:
        return registry.get(self.query.model)

    def _watched(self) -> list[Any]:
        """Return the columns that entries are made of: the primary key, the bucket, and what is looked up."""
        options: Any = self._entry.model._meta
        names = {attname: None for lookup in self._entry.lookups for attname in lookup.attnames}
        return [*options.pk_fields, *(options.get_field(name) for name in (BUCKET_COLUMN, *names))]

    def _fetched(self, statements: Sequence[tuple[str, Any]], fields: Sequence[Any]) -> list[Any]:
        """Execute statements that end with RETURNING, and return the rows as the ORM's values."""
        compiler: Any = self
        rows: list[Any] = []
        with compiler.sending(), self.connection.cursor() as cursor:
            for sql, params in statements:
                cursor.execute(sql, params)
                rows += cursor.fetchall()
        columns = [field.get_col(field.model._meta.db_table) for field in fields]
        converters = compiler.get_converters(columns)
        return list(compiler.apply_converters(rows, converters)) if converters else rows

    def _returning(self, fields: Sequence[Any]) -> str:
        quote = self.connection.ops.quote_name
        table = quote(self._entry.table)
        return "RETURNING " + ", ".join(f"{table}.{quote(field.column)}" for field in fields)

    def _stored(self, rows: Sequence[Any], fields: Sequence[Any]) -> list[StoredRow]:
        """Return what the last columns of the rows say, which are those of ``fields``."""
        options: Any = self._entry.model._meta
        width = len(options.pk_fields)
        found = []
        for row in rows:
            own = row[len(row) - len(fields) :]
            pk = own[0] if width == 1 else tuple(own[:width])
            values = {field.attname: value for field, value in zip(fields, own, strict=True)}
            found.append(StoredRow(pk, values[BUCKET_COLUMN], values))
        return found


class _KeepingInsert(_Keeping):
    """INSERT: every new row gets its entries."""

    def execute_sql(self, returning_fields: Any = None) -> list[Any]:
        asked, watched = list(returning_fields or ()), self._watched()
        compiler: Any = self
        compiler.returning_fields = [*asked, *watched]
        with one_transaction(self.door):
            rows = self._fetched(compiler.as_sql(), compiler.returning_fields)
            self._keep(self._stored(rows, watched))
        return [tuple(row[: len(asked)]) for row in rows] if asked else []

    def _keep(self, rows: list[StoredRow]) -> None:
        lookups, using = self._entry.lookups, self.door.alias
        if self.query.on_conflict is None:
            entries.add(lookups, rows, using)
        elif self.query.on_conflict == OnConflict.UPDATE:
            entries.settle(lookups, rows, using)
        elif not entries.add_free(lookups, rows, using):
            raise ValueTaken


class _KeepingUpdate(_Keeping):
    """UPDATE of looked-up columns: the entries of the changed rows follow."""

    #: Of a statement over several shards, which settles what all of them have written.
    settlement: Settlement | None = None

    def execute_sql(self, result_type: Any) -> int:
        def send(compiler: Any) -> int:
            return compiler.execute_sql(result_type) or 0

        return self._unchanged(send) or len(self._changed([]))

    def execute_returning_sql(self, returning_fields: Any) -> list[Any]:
        """Do the same, and return columns of the written rows (Django 6)."""

        def send(compiler: Any) -> list[Any]:
            return list(compiler.execute_returning_sql(returning_fields))

        return self._unchanged(send) or self._changed(list(returning_fields))

    def _unchanged(self, send: Callable[[Any], Any]) -> Any:
        """
        Send the UPDATE for the case that its row has the looked-up values already, as nearly every save() has.

        No row is written otherwise. A row that has them keeps its entries, so that this needs no other database.
        """
        same = _with_same_values(self.query, self._entry, self.connection)
        if same is None:
            return None
        compiler = self.plain(same, self.connection, self.connection.alias)
        compiler.door = self.door
        return send(compiler)

    def _changed(self, asked: list[Any]) -> list[Any]:
        fields = [*asked, *self._watched()]
        compiler: Any = self
        with one_transaction(self.door):
            try:
                sql, params = compiler.as_sql()
            except EmptyResultSet:
                return []
            if not sql:
                return []
            rows = self._fetched([(f"{sql} {self._returning(fields)}", params)], fields)
            touched, stored = _touched(self.query, self._entry), self._stored(rows, self._watched())
            if self.settlement is not None:
                self.settlement.add(touched, stored)
            else:
                entries.settle(touched, stored, self.door.alias)
        return [tuple(row[: len(asked)]) for row in rows]


class _KeepingDelete(_Keeping):
    """DELETE: the entries go with their rows."""

    def execute_sql(self, result_type: Any) -> int:
        fields = self._watched()
        compiler: Any = self
        with one_transaction(self.door):
            try:
                sql, params = compiler.as_sql()
            except EmptyResultSet:
                return 0
            rows = self._fetched([(f"{sql} {self._returning(fields)}", params)], fields)
            entries.remove(self._entry.lookups, self._stored(rows, fields), self.door.alias)
        return len(rows)


_KEEPING: dict[str, type[_Keeping]] = {INSERT: _KeepingInsert, UPDATE: _KeepingUpdate, DELETE: _KeepingDelete}


@cache
def _with(native: Any, mixin: Any) -> type[Any]:
    return type(f"Keeping{native.__name__}", (mixin, native), {"plain": native})


def _with_same_values(query: Any, entry: Entry, connection: Any) -> Any:
    """Return the UPDATE limited to rows that have the looked-up values already; None unless it names one row."""
    options: Any = entry.model._meta
    if not any(_names_row(node, options) for node in routing.anded(query.where)):
        return None
    watched = {attname for lookup in entry.lookups for attname in lookup.attnames}
    same = query.clone()
    alias = same.get_initial_alias()
    conditions: list[Any] = [same.where]
    for field, _, value in query.values:
        if field.attname in watched:
            if hasattr(value, "resolve_expression") or getattr(field, "db_collation", None):
                # What is equal under another collation may still be another text.
                return None
            column: Any = field.get_col(alias)
            conditions.append(IsNull(column, True) if value is None else field.get_lookup("exact")(column, value))
    same.where = WhereNode(conditions, AND)
    return same


def _names_row(node: Any, options: Any) -> bool:
    if not isinstance(node, Exact):
        return False
    if isinstance(node.lhs, Col):
        return len(options.pk_fields) == 1 and node.lhs.target is options.pk
    return isinstance(node.lhs, ColPairs) and [col.target for col in node.lhs.get_cols()] == list(options.pk_fields)

"""
Which rows of which tables a statement reads: found while Django writes it, so that no FROM clause is missed.

Of each table, what must travel are the rows that the conditions of one of its readers may leave; the statement itself
repeats every condition. The columns are those that its text names.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from typing import Any

from django.apps import apps
from django.db import DEFAULT_DB_ALIAS, router
from django.db.models.expressions import RawSQL
from django.db.models.sql import Query
from django.db.models.sql.where import ExtraWhere

from aggregator.compiled import Sql, place_of
from aggregator.gathered_conditions import condition_of, joined
from aggregator.planner import own_raw_sql
from aggregator.refusal import cannot_merge
from sharding import locality, reference_models, registry, scopes

REMEDY = "Do this part in Python, or limit the query to one shard key."


@dataclass(frozen=True, slots=True)
class Table:
    """What has to travel of one sharded table."""

    name: str
    fields: tuple[Any, ...]
    #: The rows that may be needed; None: all of them.
    where: Sql | None


class Reads:
    """What one statement reads; the compilers of all its parts tell of their FROM clauses."""

    def __init__(self, query: Query, *, everywhere: bool) -> None:
        self.query = query
        #: Every shard is asked, so that each part may read any row.
        self.everywhere = everywhere
        #: Conditions of each reader of a table; None for a reader of all of its rows.
        self._readers: dict[str, list[Sql | None]] = {}

    def compiler(self, native: Any) -> Any:
        """Return the class of the compilers of a statement's parts."""
        return _recording(native)

    def note(self, compiler: Any) -> None:
        """Remember what a compiler's FROM clause reads."""
        query = compiler.query
        if not self.everywhere:
            locality.check_compiled(query, compiler.klass_info, registry.entry(query.model))
        if query.select_for_update:
            raise cannot_merge(self.query, "select_for_update()", "Lock the rows by a query of their own.")
        if query.extra_tables:
            raise cannot_merge(self.query, "extra(tables=…)", "Query the models of those tables instead.")
        for alias, join in query.alias_map.items():
            if query.alias_refcount[alias]:
                self._readers.setdefault(join.table_name, []).append(condition_of(compiler, alias))

    def tables(self, sql: str, connection: Any) -> list[Table]:
        """Return what of the sharded tables has to travel for a statement; reference tables are everywhere."""
        sharded = registry.tables()
        return [
            Table(name, _named(sharded[name], sql, connection), _any_of(self._readers[name]))
            for name in sorted(self._readers.keys() & sharded.keys())
        ]

    def is_scoped(self) -> bool:
        """Return whether a table is read of whose rows the caller's scope allows one key's only."""
        labels = (label for name, label in registry.tables().items() if name in self._readers)
        entries = (registry.get(apps.get_model(label)) for label in labels)
        return any(scopes.key_of(entry) is not None for entry in entries)

    def needs_control(self) -> bool:
        """
        Return whether a global model's table is read, which the control database alone has.

        Raises:
            CannotMerge: a table is in another database still, or unknown.
        """
        others = self._readers.keys() - registry.tables().keys() - reference_models.table_names()
        models = {model._meta.db_table: model for model in apps.get_models(include_auto_created=True)}
        for name in sorted(others):
            if name not in models or router.db_for_write(models[name]) != DEFAULT_DB_ALIAS:
                raise cannot_merge(self.query, f"the table {name!r}, which is in no database of the cluster", REMEDY)
        return bool(others)


class Recording:
    """Mixin of Django's SQLCompiler: it tells what it reads."""

    query: Any
    connection: Any

    def get_from_clause(self) -> Any:
        found = super().get_from_clause()  # type: ignore[misc]
        self.connection.gathering.note(self)
        return found

    def compile(self, node: Any) -> Any:
        if isinstance(node, (RawSQL, ExtraWhere)) and node not in own_raw_sql(self.query):
            raise cannot_merge(self.query, "raw SQL in a query", "Write it with Django's expressions.")
        return super().compile(node)  # type: ignore[misc]

    def collapse_group_by(self, expressions: list[Any], having: Any) -> list[Any]:
        # Rows that have travelled have no primary key on which other columns depend.
        return expressions


@contextmanager
def recorded(query: Query, connection: Any, *, everywhere: bool) -> Iterator[Reads]:
    """Inside, every part of a statement that is compiled for ``connection`` tells what it reads."""
    before, connection.gathering = connection.gathering, Reads(query, everywhere=everywhere)
    try:
        yield connection.gathering
    finally:
        connection.gathering = before


@cache
def _recording(native: Any) -> Any:
    return type(f"Recording{native.__name__}", (Recording, native), {})


def _any_of(readers: list[Sql | None]) -> Sql | None:
    conditions: list[Sql] = []
    for each in readers:
        if each is None:
            return None
        if place_of(each, conditions) is None:
            conditions.append(each)
    return joined(conditions, " OR ")


def _named(label: str, sql: str, connection: Any) -> tuple[Any, ...]:
    """Return the fields whose columns a statement names: Django quotes each column."""
    fields = apps.get_model(label)._meta.concrete_fields
    named = tuple(field for field in fields if connection.ops.quote_name(field.column) in sql)
    # COUNT(*) names none.
    return named or fields[:1]

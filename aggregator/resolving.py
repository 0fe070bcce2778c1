"""
UPDATE and DELETE of rows that are found by what other shards have, or by a window over the rows of all: their ids are
found first, then they are written.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models.sql import Query
from django.db.models.sql.constants import MULTI

from aggregator.gathered_conditions import conjuncts, reads_only
from sharding.backends.hook import FanOutRequest


class Resolving:
    """Stands for Django's compiler of such a statement."""

    def __init__(self, request: FanOutRequest) -> None:
        self.request = request
        self.query = request.query
        self.connection = request.door

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        """Return the statement that finds the rows."""
        return self._compiler("SQLCompiler", self._finding()).as_sql()

    def execute_sql(self, result_type: Any) -> Any:
        """Return the number of rows that were written."""
        return self._write("execute_sql", result_type)

    def execute_returning_sql(self, returning_fields: Any) -> Any:
        """Return the rows that an UPDATE gives back (Django 6)."""
        return self._write("execute_returning_sql", returning_fields)

    def _write(self, method: str, argument: Any) -> Any:
        door = self.request.door
        with door.committing_one_by_one(), transaction.atomic(using=door.alias, savepoint=False):
            found = self._compiler("SQLCompiler", self._finding()).execute_sql(MULTI)
            ids = [row if len(row) > 1 else row[0] for rows in found for row in rows]
            return getattr(self._compiler(self.request.name, self._writing(ids)), method)(argument)

    def _compiler(self, name: str, query: Query) -> Any:
        door = self.request.door
        return door.ops.compiler(name)(query, door, door.alias, self.request.elide_empty)

    def _finding(self) -> Query:
        query: Any = self.query.chain(klass=Query)
        query.values = ()
        query.select_related = False
        query.clear_ordering(force=True)
        query.clear_select_clause()
        query.add_fields([query.get_meta().pk.name])
        return query  # type: ignore[no-any-return]

    def _writing(self, ids: list[Any]) -> Query:
        query: Any = self.query.clone()
        # Rows that have changed meanwhile must still meet what can be said of them alone.
        base = query.get_initial_alias()
        kept = [node for node in conjuncts(query.where) if reads_only(node, {base})]
        query.clear_where()
        for node in kept:
            query.where.add(node, query.where.connector)
        for alias in query.alias_map:
            if alias != base:
                query.alias_refcount[alias] = 0
        query.add_filter("pk__in", ids)
        # What is set must not read other shards.
        query.fan_out = None
        return query  # type: ignore[no-any-return]

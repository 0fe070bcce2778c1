"""
Queries that name no shard key, but a second key: the control database is asked where their rows are.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from functools import cache
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db.models.sql import Query

from sharding import routing
from sharding.lookups import in_flight
from sharding.lookups.matching import Match

#: Seconds to wait for a commit that is under way on the row's shard; it takes one or two thousandths of one.
PATIENCE = 0.5


class ByLookup:
    """
    Stands for Django's compiler of a query whose buckets a lookup knows.

    The lookup is asked when the query is executed, and never for ``str(query)``.
    """

    def __init__(self, unasked: Any, answer: Callable[[], Any]) -> None:
        self._unasked = unasked
        self._answer = answer
        self._answering: Any = None

    def as_sql(self, *args: Any, **kwargs: Any) -> Any:
        return (self._answering or self._unasked).as_sql(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if self._answering is None:
            self._answering = self._answer()
        return getattr(self._answering, name)


def buckets(match: Match, door: Any) -> frozenset[int]:
    """Return the buckets of the rows with the values that a query names. Uncommitted entries of the block count."""
    table = door.ops.quote_name(match.lookup.name)
    compiler = door.ops.native_compiler("SQLCompiler")(Query(match.lookup.model), door, None)
    conditions: list[str] = []
    params: list[Any] = []
    try:
        for node in match.conditions:
            sql, values = compiler.compile(_on_entries(node, match))
            conditions.append(sql)
            params += values
    except EmptyResultSet:
        return routing.NO_ROW
    many = "" if match.single else "DISTINCT "
    bucket = door.ops.quote_name("bucket")
    with door.cursor() as cursor:
        cursor.execute(f"SELECT {many}{bucket} FROM {table} WHERE {' AND '.join(conditions)}", params)
        return frozenset(bucket for (bucket,) in cursor.fetchall())


def patient(compiler: Any) -> Any:
    """Let a compiler of Django's look again where an entry promises a row, and the row's commit is under way."""
    native: Any = type(compiler)
    compiler.__class__ = _patient(native)
    return compiler


@cache
def _patient(native: Any) -> type[Any]:
    class PatientCompiler(native):  # type: ignore[misc]
        def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
            found = super().execute_sql(*args, **kwargs)
            if kwargs.get("chunked_fetch") and found is not None:
                # At most one row.
                found = list(found)
            # One row of nothing but 0 and NULL is what aggregates answer for no row.
            if found and (not isinstance(found, tuple) or any(found)):
                return found
            in_flight.wait_for(self.connection, in_flight.commits(self.connection), seconds=PATIENCE)
            # Also where nothing is being committed: the commit may have come after the first look.
            return super().execute_sql(*args, **kwargs)

    PatientCompiler.__name__ = f"Patient{native.__name__}"
    return PatientCompiler


def _on_entries(node: Any, match: Match) -> Any:
    """Return the condition about the entry's column; its values stay as the row's field has prepared them."""
    moved = copy(node)
    field: Any = match.lookup.model._meta.get_field(node.lhs.target.name)
    moved.lhs = field.get_col(match.lookup.name)
    return moved

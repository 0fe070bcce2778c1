"""
Cursors whose copy() and stream() are statements like any other: execute wrappers see them, and refuse what is refused.

Django passes these two on to psycopg unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any

from django.db.backends.postgresql.base import CursorDebugWrapper
from django.db.backends.utils import CursorWrapper


class WatchedStatements:
    """Mixin of Django's cursor wrappers."""

    cursor: Any
    db: Any

    def copy(self, statement: Any, params: Any = None, **options: Any) -> AbstractContextManager[Any]:
        """Return psycopg's context manager for a COPY statement."""
        copy: AbstractContextManager[Any] = self._watched(self.cursor.copy, statement, params, options)
        return copy

    def stream(self, query: Any, params: Any = None, **options: Any) -> Iterator[Any]:
        """Return psycopg's iterator over the rows of a statement, which are fetched while they are read."""
        rows: Iterator[Any] = self._watched(self.cursor.stream, query, params, options)
        return rows

    def _watched(self, send: Any, sql: Any, params: Any, options: dict[str, Any]) -> Any:
        def execute(sql: Any, params: Any, *ignored: Any) -> Any:
            self.db.validate_no_broken_transaction()
            return send(sql, params, **options)

        return self._execute_with_wrappers(sql, params, many=False, executor=execute)  # type: ignore[attr-defined]


class WatchedCursor(WatchedStatements, CursorWrapper):
    pass


class WatchedDebugCursor(WatchedStatements, CursorDebugWrapper):
    def copy(self, statement: Any, params: Any = None, **options: Any) -> AbstractContextManager[Any]:
        with self.debug_sql(statement, params):
            return super().copy(statement, params, **options)


class WatchedCursors:
    """Mixin of the PostgreSQL wrapper."""

    def make_cursor(self, cursor: Any) -> WatchedCursor:
        return WatchedCursor(cursor, self)

    def make_debug_cursor(self, cursor: Any) -> WatchedDebugCursor:
        return WatchedDebugCursor(cursor, self)

"""
Clean up after a test with transactions of its own, in a fraction of the time that Django takes for it.

Tables are emptied by DELETE: TRUNCATE gives every table and index a new file, and lets every session forget what it
knows of them, which for the few rows of a test takes fifty times as long. What Django writes after each migration
stays. So do sessions that are as they were when they were opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock
from weakref import WeakSet

from django.core.management.commands import flush
from django.db import Error, connections
from django.db.backends.base.operations import BaseDatabaseOperations
from django.db.backends.utils import CursorWrapper
from django.test import TransactionTestCase
from psycopg.pq import TransactionStatus

from sharding.errors import ShardingError

#: What Django fills after each migration.
KEPT = {'"django_content_type"', '"auth_permission"'}

#: Statements that leave a session changed.
CHANGES = re.compile(
    r"\s*(SET\s(?!LOCAL|TRANSACTION|CONSTRAINTS)|LISTEN|CREATE\s+TEMP)|.*(set_config|pg_advisory_lock)",
    re.IGNORECASE | re.DOTALL,
)

_changed: WeakSet[Any] = WeakSet()
_execute = CursorWrapper._execute
_flush = BaseDatabaseOperations.execute_sql_flush
_emit = flush.emit_post_migrate_signal
_teardown = TransactionTestCase._fixture_teardown


@contextmanager
def quickly() -> Iterator[None]:
    """Let Django's tests with transactions of their own clean up in this way."""
    with (
        mock.patch.object(TransactionTestCase, "_fixture_teardown", _teardown_by_deleting),
        mock.patch.object(TransactionTestCase, "_should_reload_connections", _close_what_was_changed),
        mock.patch.object(CursorWrapper, "_execute", _execute_and_note),
    ):
        yield


def _teardown_by_deleting(self: Any) -> None:
    emptied: set[str] = set()

    def execute(ops: Any, sql_list: list[str]) -> None:
        if not _is_deleted(ops, sql_list):
            _flush(ops, sql_list)
            emptied.add(ops.connection.alias)

    def emit(verbosity: int, interactive: bool, db: str, **kwargs: Any) -> None:
        if db in emptied:
            _emit(verbosity, interactive, db, **kwargs)

    with (
        mock.patch.object(BaseDatabaseOperations, "execute_sql_flush", execute),
        mock.patch.object(flush, "emit_post_migrate_signal", emit),
    ):
        _teardown(self)


def _is_deleted(ops: Any, sql_list: list[str]) -> bool:
    if ops.connection.vendor != "postgresql":
        return False
    try:
        _flush(ops, [_deletion(re.findall(r'"[^"]+"', sql)) for sql in sql_list])
    except (Error, ShardingError):
        # Rows of other tables refer to one, or a fence refuses to let one go.
        return False
    return True


def _deletion(tables: list[str]) -> str:
    """Return one statement for all tables: foreign keys are looked at when it ends."""
    emptied = [table for table in tables if table not in KEPT]
    each = ", ".join(f"_{number} AS (DELETE FROM {table})" for number, table in enumerate(emptied))
    return f"WITH {each} SELECT"


def _execute_and_note(self: Any, sql: Any, *arguments: Any) -> Any:
    if CHANGES.match(str(sql)):
        _changed.add(self.db.connection)
    return _execute(self, sql, *arguments)


def _close_what_was_changed(self: Any) -> bool:
    """Close sessions that may not be as new, and return that Django need not close all."""
    for connection in connections.all(initialized_only=True):
        if not _is_as_new(connection):
            connection.close()
    return False


def _is_as_new(connection: Any) -> bool:
    if connection.vendor != "postgresql" or connection.connection is None or connection.connection in _changed:
        return False
    is_idle = connection.connection.info.transaction_status is TransactionStatus.IDLE
    return is_idle and connection.get_autocommit() and connection.is_usable()

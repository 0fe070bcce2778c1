"""
Empty the tables after a test by DELETE, which takes a fiftieth of what TRUNCATE does for the few rows of a test.

TRUNCATE gives every table and index a new file, too, and lets every session forget what it knows of them. What Django
writes after each migration stays as it is, so that it need not be written again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.core.management.commands import flush
from django.db import Error
from django.db.backends.base.operations import BaseDatabaseOperations
from django.test import TransactionTestCase

from sharding.errors import ShardingError

#: What Django fills after each migration.
KEPT = {'"django_content_type"', '"auth_permission"'}

_flush = BaseDatabaseOperations.execute_sql_flush
_emit = flush.emit_post_migrate_signal
_teardown = TransactionTestCase._fixture_teardown


@contextmanager
def by_deleting() -> Iterator[None]:
    """Let Django's tests with transactions of their own delete what they leave."""
    with mock.patch.object(TransactionTestCase, "_fixture_teardown", _teardown_by_deleting):
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

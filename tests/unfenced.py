"""
Rows where the fence would not let them be: as if they were older than it, or somebody had its triggers off.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections, transaction


@contextmanager
def unfenced(alias: str, *tables: str) -> Iterator[None]:
    """Let some tables of a database take rows of any bucket inside, in a transaction."""
    with transaction.atomic(using=alias):
        _switch(alias, tables, "DISABLE")
        yield
        _switch(alias, tables, "ENABLE")


@contextmanager
def without_fences(aliases: Iterable[str]) -> Iterator[None]:
    """Take away the fences of some databases; who uses it raises them again once SHARDING has a FENCE."""
    for alias in aliases:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT oid::regprocedure FROM pg_proc WHERE proname LIKE 'sharding\\_fence\\_%'")
            for (function,) in cursor.fetchall():
                cursor.execute(f"DROP FUNCTION {function} CASCADE")
            cursor.execute("DELETE FROM sharding_fence")
            cursor.execute("UPDATE sharding_identity SET shown = NULL, hidden = NULL")
    yield


def _switch(alias: str, tables: tuple[str, ...], word: str) -> None:
    connection: Any = connections[alias]
    # SQLite has no fences.
    if connection.vendor == "postgresql":
        # What waits for the end of the transaction would keep the tables from being altered.
        connection.check_constraints()
        with connection.cursor() as cursor, connection.sharded_statements():
            for table in tables:
                cursor.execute(f"ALTER TABLE {table} {word} TRIGGER USER")

"""
A database beside a shard's own, of another encoding or in another language.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections


@contextmanager
def another_database(alias: str, options: str) -> Iterator[Any]:
    """Yield a connection to a new and empty database on the server of a shard."""
    name = f"{connections[alias].settings_dict['NAME']}_other"
    with connections[alias].copy()._nodb_cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}"')
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE template0 {options}')
    connection = connections[alias].copy()
    connection.settings_dict["NAME"] = name
    try:
        yield connection
    finally:
        connection.close()
        with connections[alias].copy()._nodb_cursor() as cursor:
            cursor.execute(f'DROP DATABASE "{name}"')

"""
Raw SQL on `default` reaches the control database only, so a statement there that names a sharded table is refused.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

from sharding import registry
from sharding.errors import RawShardedSQL

#: A comment that allows a statement to read the sharded tables of the control database itself.
CONTROL_ONLY = "/* control database only */"


def refuse_sharded_tables(text: str, connection: Any) -> None:
    """
    Check that raw SQL on `default` names no sharded table.

    Raises:
        RawShardedSQL: it does.
    """
    table = named_table(text, registry.table_names(), connection.vendor)
    if table is not None:
        raise RawShardedSQL(
            f"This SQL on {connection.alias!r} names {table!r}, a table of the sharded model "
            f"{registry.tables()[table]}, and would see the rows of the control database only. Ask every shard "
            f"with aggregator.raw() or on_each_shard(), some with their shards=[…], or put {CONTROL_ONLY} into the "
            f"statement if that is what you mean.",
            table=table,
        )


def text_of(sql: Any, connection: Any) -> str:
    """Return the text of all that psycopg takes: strings, bytes, and what psycopg.sql composes."""
    if isinstance(sql, str):
        return sql
    if isinstance(sql, bytes):
        return sql.decode(errors="replace")
    return str(sql.as_string(connection.connection)) if hasattr(sql, "as_string") else repr(sql)


@lru_cache(maxsize=4096)
def named_table(sql: str, tables: frozenset[str], vendor: str) -> str | None:
    """Return the first of some tables that a statement names, or None; a marked statement names none."""
    # SQLite's names have no case, nor have PostgreSQL's when they are not quoted.
    folded = sql.lower()
    if not any(table.lower() in folded for table in tables) or CONTROL_ONLY in sql:
        return None
    if vendor == "sqlite" and sql.startswith("PRAGMA "):
        # SQLite's way to ask for the schema. It takes one statement at a time.
        return None
    for table in sorted(tables):
        if re.search(rf"(?<![\w$]){re.escape(table.lower())}(?![\w$])", folded):
            return table
    return None

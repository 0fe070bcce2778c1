"""
Raw SQL on `default` reaches the control database only, so a statement there that names a sharded table is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sharding import registry, routing
from sharding.errors import RawShardedSQL

#: A comment that allows a statement to read the sharded tables of the control database itself.
CONTROL_ONLY = "/* control database only */"


def refuse_sharded_tables(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """
    Execute a statement, unless it is raw SQL that names the table of a sharded model. An execute wrapper.

    Raises:
        RawShardedSQL: it does.
    """
    connection = context["connection"]
    if not connection.sharded_depth and routing.native_alias() is None and isinstance(sql, str):
        table = _named(sql, frozenset(registry.tables()))
        if table is not None:
            raise RawShardedSQL(
                f"This SQL on {connection.alias!r} names {table!r}, a table of the sharded model "
                f"{registry.tables()[table]}, and would see the rows of the control database only. Ask every shard "
                f"with aggregator.on_each_shard(), one shard with using(…).raw(…), or put {CONTROL_ONLY} into the "
                f"statement if that is what you mean.",
                table=table,
            )
    return execute(sql, params, many, context)


@lru_cache(maxsize=4096)
def _named(sql: str, tables: frozenset[str]) -> str | None:
    if not any(table in sql for table in tables) or CONTROL_ONLY in sql:
        return None
    if sql.startswith("PRAGMA "):
        # SQLite's way to ask for the schema.
        return None
    for table in sorted(tables):
        if re.search(rf"(?<![\w$]){re.escape(table)}(?![\w$])", sql):
            return table
    return None

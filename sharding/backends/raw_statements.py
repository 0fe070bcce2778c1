"""
What every statement on `default` passes through: the block begins there, and raw SQL that would go wrong is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sharding import reference_models, registry, routing
from sharding.backends.raw_reference_sql import refuse_writes
from sharding.backends.raw_sql import named_table, refuse_sharded_tables, text_of


def on_default(execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """
    Execute a statement inside the open block: an execute wrapper. One for all, since each costs every statement.

    Raises:
        RawShardedSQL: it is raw SQL that names a sharded table, or writes a reference table.
    """
    connection = context["connection"]
    if connection.pending:
        # The cursor is older than the block.
        connection.begin()
    if not connection.sharded_depth and routing.native_alias() is None:
        text = sql if type(sql) is str else text_of(sql, connection)
        if _names_any(text, registry.table_names(), reference_models.table_names(), connection.vendor):
            refuse_sharded_tables(text, connection)
            refuse_writes(text, connection)
    return execute(sql, params, many, context)


@lru_cache(maxsize=4096)
def _names_any(text: str, sharded: frozenset[str], reference: frozenset[str], vendor: str) -> bool:
    return any(named_table(text, tables, vendor) is not None for tables in (sharded, reference))

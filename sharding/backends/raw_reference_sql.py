"""
SQL over reference tables, whoever wrote it: what changes one copy alone, and what reads a copy that is not there yet.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from sharding import conf, reference_copies, reference_models, routing
from sharding.backends.raw_sql import CONTROL_ONLY, named_table, text_of
from sharding.errors import RawShardedSQL

#: A table's name, quoted or not, after that of its schema.
NAME = r"""(?:["`\[]?[\w$]+["`\]]?\s*\.\s*)?["`\[]?{}(?![\w$])"""
#: How statements name the table that they write.
WRITES = (
    r"\b(?:insert(?:\s+or\s+\w+)?\s+into|replace\s+into|merge\s+into|update|delete\s+from)(?:\s+only)?\s+" + NAME,
    r"\bcopy\s+" + NAME + r"[^;]*?\bfrom\b",
    r"\btruncate\b[^;]*?[\s,]" + NAME,
)


def refuse_writes(text: str, connection: Any) -> None:
    """
    Check that raw SQL on `default` writes no reference table.

    Raises:
        RawShardedSQL: it does.
    """
    table = _written(text, reference_models.table_names(), connection.vendor) if conf.current().shards else None
    if table is not None:
        raise RawShardedSQL(
            f"This SQL on {connection.alias!r} writes {table!r}, a table of the reference model "
            f"{reference_models.tables()[table]}, and would change the control database's copy only. Write through "
            f"the model, or put {CONTROL_ONLY} into the statement and copy the rows afterwards, with "
            f"`manage.py shards audit --repair-reference`.",
            table=table,
        )


def refuse_missing_copies(
    execute: Callable[..., Any], sql: Any, params: Any, many: bool, context: dict[str, Any]
) -> Any:
    """
    Execute a statement on a shard, unless it names a reference table that the shard was not given. An execute wrapper.

    Raises:
        ReferenceOutdated: it does.
    """
    connection = context["connection"]
    if (
        routing.native_alias() is None
        and reference_models.tables()
        and not reference_copies.is_complete(connection.alias)
    ):
        table = named_table(text_of(sql, connection), reference_models.table_names(), connection.vendor)
        if table is not None:
            reference_copies.require(connection.alias, table)
    return execute(sql, params, many, context)


@lru_cache(maxsize=4096)
def _written(sql: str, tables: frozenset[str], vendor: str) -> str | None:
    if named_table(sql, tables, vendor) is None:
        return None
    folded = sql.lower()
    for table in sorted(tables):
        if any(re.search(pattern.format(re.escape(table.lower())), folded) for pattern in WRITES):
            return table
    return None

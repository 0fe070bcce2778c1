"""
Blocks under REPEATABLE READ or SERIALIZABLE: what was committed after their first statement is hidden from them.
"""

from __future__ import annotations

from typing import Any

from sharding.commits import sessions


def is_old(connection: Any) -> bool:
    """Return whether the statements of the open transaction see what was committed before its first one only."""
    if connection.vendor != "postgresql":
        return False
    with connection.cursor() as cursor:
        # SHOW takes no snapshot.
        cursor.execute("SHOW transaction_isolation")
        (level,) = cursor.fetchone()
    return level not in {"read committed", "read uncommitted"}


def committed(entries: Any) -> list[Any]:
    """Return entries as everybody else sees them: another session reads them."""
    query = entries.values_list(*(field.attname for field in entries.model._meta.concrete_fields)).query
    compiler = query.get_compiler(entries.db)
    sql, params = compiler.as_sql()
    with sessions.session(entries.db) as cursor:
        cursor.execute(sql, params)
        rows = cursor.fetchall()
    converters = compiler.get_converters([column for column, *_ in compiler.select])
    return [entries.model(*row) for row in compiler.apply_converters(rows, converters)]

"""
Finishing partial results by a statement over all partial rows, on one of the shards or, for SQLite, in memory.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator, Sequence
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

from aggregator import executor, variance
from aggregator.merge import Row

if TYPE_CHECKING:
    from aggregator.partials import Statements


def fetching(sql: str, params: Any) -> executor.Executing[list[Row]]:
    """Return the task that sends a statement on a connection and fetches all of its rows."""
    return executor.Executing(sql, params, _all)


def reading(sql: str, params: Any, size: int) -> executor.Executing[Iterator[Row]]:
    """
    Return the task that sends a statement, and makes Python's values of its rows only as they are needed.

    The driver has all rows of a statement at once (PostgreSQL), and to load them is most of the work with them.
    """
    return executor.Executing(sql, params, partial(_in_chunks, size))


def _in_chunks(size: int, cursor: Any) -> Iterator[Row]:
    # The first one at once, while other servers are still waited for.
    fetch = partial(cursor.fetchmany, size)
    return chain(fetch(), chain.from_iterable(iter(fetch, [])))


def _all(cursor: Any) -> list[Row]:
    rows: list[Row] = cursor.fetchall()
    return rows


def on_a_shard(home: Any, connections: Sequence[Any], statements: Statements) -> list[Row]:
    """
    Finish on ``home``, one of the shards (PostgreSQL).

    Partial rows travel as JSON text that PostgreSQL wrote and reads again, so that no value passes through Python.
    """
    sql, params = statements.sent
    count = len(statements.declared) or 1
    # With -1, the names of CHAR and BIT are those of their types without a length, not with the length one.
    types = ", ".join(f"format_type(pg_typeof(c{number}), -1)" for number in range(count))
    # The types are asked for without any row, too: of no rows there are aggregates.
    wrapped = (
        f"WITH t AS MATERIALIZED ({sql}) SELECT string_agg(row_to_json(t)::text, ','), "
        f"(SELECT ARRAY[{types}] FROM (SELECT) AS one LEFT JOIN t ON true LIMIT 1) FROM t"
    )
    answers = [rows[0] for rows in executor.run(connections, fetching(wrapped, params))]
    names = answers[0][1]
    columns = ", ".join(f"c{number} {name}" for number, name in enumerate(names))
    final, final_params = statements.sql
    final = re.sub("\0(\\d+)\0", lambda match: names[int(match[1])], final)
    final = f"WITH p AS (SELECT * FROM json_to_recordset(%s::json) AS t({columns})) {final}"
    partial_rows = f"[{','.join(text for text, _ in answers if text is not None)}]"
    return executor.run([home], fetching(final, (partial_rows, *final_params)))[0]


def in_memory(home: Any, connections: Sequence[Any], statements: Statements) -> list[Row]:
    """Finish in a throw-away database with Django's functions (SQLite)."""
    from django.db.backends.sqlite3._functions import register  # type: ignore[import-untyped]
    from django.db.backends.sqlite3.base import SQLiteCursorWrapper

    sql, params = statements.sent
    declared = statements.declared or [""]
    names = [f"c{number}" for number in range(len(declared))]
    # As expressions, the columns have no declared type by which values would be converted.
    raw = ", ".join(f"+{name}" for name in names)
    answers = executor.run(connections, fetching(f"SELECT {raw} FROM ({sql})", params))
    memory = sqlite3.connect(":memory:")
    try:
        register(memory)
        variance.register(memory)
        columns = ", ".join(f"{name} {kind}" for name, kind in zip(names, declared, strict=True))
        memory.execute(f"CREATE TABLE p ({columns})")
        insert = f"INSERT INTO p VALUES ({', '.join('?' * len(names))})"
        for rows in answers:
            memory.executemany(insert, rows)
        cursor = memory.cursor(factory=SQLiteCursorWrapper)
        final, final_params = statements.sql
        with home.wrap_database_errors:
            found: list[Row] = cursor.execute(final, final_params).fetchall()
        return found
    finally:
        memory.close()

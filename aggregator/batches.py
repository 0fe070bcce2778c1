"""
Rows in batches, each of which begins after the last row of the one before: what a pooler allows that shares sessions.

A batch is a statement by itself. Inside a transaction whose snapshot lasts they are one answer; else a row that is
written meanwhile is seen as it is when its turn comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE

from aggregator import executor, ordering
from aggregator.asking import Asking
from aggregator.finishing import fetching
from aggregator.merge import Row, SortKey
from aggregator.ranks import writer
from aggregator.repeated_rows import repeats_rows
from sharding.backends.compilers import sending

DISABLED = "DISABLE_SERVER_SIDE_CURSORS"


def are_needed(connection: Any) -> bool:
    """Return whether the rows of a shard cannot come by a cursor."""
    return any(each.settings_dict.get(DISABLED) for each in (connection, connection.door))


def are_meant(connection: Any, chunk_size: int) -> bool:
    """
    Return whether an iterator() is meant, where Django has turned it into a fetch of all rows because of the setting.

    Of that, the size of chunks is all that tells, unless it is the one that Django takes for everything else.
    """
    return chunk_size != GET_ITERATOR_CHUNK_SIZE and connection.vendor == "postgresql" and are_needed(connection)


@dataclass(frozen=True, slots=True)
class Statement:
    """A statement without its order, of which batches are made."""

    sql: str
    params: Sequence[Any]
    width: int
    #: They order the rows totally.
    keys: Sequence[SortKey]

    def batch(self, size: int, condition: str, values: Sequence[Any]) -> tuple[str, tuple[Any, ...]]:
        names = ", ".join(f"c{position}" for position in range(self.width))
        sql = f"SELECT * FROM ({self.sql}) AS whole ({names}) WHERE {condition} ORDER BY {self._order()} LIMIT {size}"
        return sql, (*self.params, *values)

    def _order(self) -> str:
        return ", ".join(
            f"c{key.position} {'DESC' if key.descending else 'ASC'} NULLS {'FIRST' if key.nulls_first else 'LAST'}"
            for key in self.keys
        )


def statement_of(compiler: Any) -> Statement | None:
    """Return the statement of a compiler that has set up its clauses; None if batches of it would not be exact."""
    query = compiler.query
    if not compiler.order.keys or query.distinct or compiler.groups or query.select_for_update or repeats_rows(query):
        return None
    extra, order_by, group_by = compiler.pre_sql_setup()
    compiler.set_clauses(extra, [], group_by)
    try:
        sql, params = compiler.as_sql(with_limits=False)
    finally:
        compiler.set_clauses(extra, order_by, group_by)
    width = ordering.width([*compiler.select, *extra])
    return Statement(sql, params, width, compiler.order.keys)


def chunks(statement: Statement, connection: Any, size: int) -> Iterator[list[Row]]:
    """Return the rows of one shard. Each batch takes part in what transaction is open by then."""
    return _chunks(statement, connection, size, executor.asking_now())


def _chunks(statement: Statement, connection: Any, size: int, asking: Asking) -> Iterator[list[Row]]:
    values: tuple[str, ...]
    first = statement.keys[0]
    # As a part of its own, neither rows with NULL nor the others keep an index from being used.
    parts = [f"c{first.position} IS NULL", f"c{first.position} IS NOT NULL"]
    for part in parts if first.nulls_first else parts[::-1]:
        condition, values = part, ()
        while True:
            task = partial(fetching(*statement.batch(size, condition, values)), connection)
            with sending(connection):
                rows = executor.step(asking.again(), connection, task)
            if rows is None:
                # The shard failed, and the answer goes on without the rest of its rows.
                return
            if rows:
                yield rows
            if len(rows) < size:
                break
            write = writer(connection)
            last = [rows[-1][key.position] for key in statement.keys]
            texts = [None if value is None else write(value) for value in last]
            condition, values = _beyond(statement.keys, texts, part)


def _beyond(keys: Sequence[SortKey], values: Sequence[str | None], part: str) -> tuple[str, tuple[str, ...]]:
    """
    Return the condition of the rows beyond one whose keys have these values, within a part.

    Values are text, which PostgreSQL reads as the type of what it is compared with.
    """
    found: list[str] = []
    params: list[str] = []
    equal: list[str] = []
    before: list[str] = []
    for key, value in zip(keys, values, strict=True):
        column, sign = f"c{key.position}", "<" if key.descending else ">"
        if value is None:
            beyond = f"{column} IS NOT NULL" if key.nulls_first else "FALSE"
        else:
            beyond = f"{column} {sign} %s" + ("" if key.nulls_first else f" OR {column} IS NULL")
        found.append(" AND ".join([*equal, f"({beyond})"]))
        own = [] if value is None else [value]
        params += [*before, *own]
        equal.append(f"{column} IS NULL" if value is None else f"{column} = %s")
        before += own
    condition = " OR ".join(f"({each})" for each in found)
    if values[0] is None:
        return f"{part} AND ({condition})", tuple(params)
    # Implied by the rest, and what an index can be used for. It leaves out NULLs, which are the other part.
    bound = f"c{keys[0].position} {'<' if keys[0].descending else '>'}= %s"
    return f"{bound} AND ({condition})", (values[0], *params)

"""
How rows of a reference table travel: as the control database stores them, never computed a second time.

On PostgreSQL a value travels as the text that its type writes and reads again without loss, on SQLite as it is stored.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Row = tuple[Any, ...]

#: Parameters of one statement, where the database has no narrower limit.
PARAMETERS = 30_000

#: No longer than the largest integer of a database, so that Python reads it, too.
_WHOLE = re.compile(r"-?[0-9]{1,19}")


@dataclass(frozen=True, slots=True)
class Table:
    """A reference table: the columns that travel, and those of its primary key, which are among them."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    def keys(self, rows: Sequence[Row]) -> list[Row]:
        """Return the primary keys of rows."""
        places = [self.columns.index(column) for column in self.key]
        return [tuple(row[place] for place in places) for row in rows]

    @property
    def others(self) -> tuple[str, ...]:
        return tuple(column for column in self.columns if column not in self.key)


def table_of(model: Any) -> Table:
    """Return the table of a model; what each database computes for itself does not travel."""
    options = (model._meta.concrete_model or model)._meta
    columns = [field.column for field in options.local_concrete_fields if not field.generated]
    return Table(options.db_table, tuple(columns), tuple(field.column for field in options.pk_fields))


def in_order(key: Row) -> list[tuple[int, int, str]]:
    """Return what sorts primary keys as they travel: whole numbers by their size, before other values by their text."""
    texts = [str(value) for value in key]
    return [(0, int(text), text) if _WHOLE.fullmatch(text) else (1, 0, text) for text in texts]


def as_stored(connection: Any, columns: Sequence[str]) -> str:
    """Return the expressions of SELECT or RETURNING that give columns as they travel."""
    quoted = [connection.ops.quote_name(column) for column in columns]
    if connection.vendor == "sqlite":
        # The driver converts a plain column by its declared type, and an expression never.
        return ", ".join(f"+{column}" for column in quoted)
    return ", ".join(f"{column}::text" for column in quoted)


def write_plainly(connection: Any) -> None:
    """
    See to it that the open transaction writes dates and intervals so that every other server reads them alike.

    PostgreSQL has told the driver how it writes them, so that nobody needs to be asked.
    """
    if connection.vendor == "sqlite":
        return
    with connection.cursor() as cursor:
        said = connection.connection.info.parameter_status
        for name, plain in (("DateStyle", "ISO"), ("IntervalStyle", "postgres")):
            if not (said(name) or "").startswith(plain):
                cursor.execute(f"SET LOCAL {name} = {plain}")


def write_comparably(connection: Any) -> None:
    """See to it that equal values are equal texts on every server, until the open transaction ends."""
    if connection.vendor == "sqlite":
        return
    settings = {
        "TimeZone": "UTC",
        "DateStyle": "ISO",
        "IntervalStyle": "postgres",
        "bytea_output": "hex",
        "extra_float_digits": "1",
    }
    calls = ", ".join(f"set_config('{name}', '{value}', true)" for name, value in settings.items())
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {calls}")


def read(connection: Any, table: Table) -> list[Row]:
    """Return all rows."""
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {as_stored(connection, table.columns)} FROM {_name(connection, table)}")
        return [tuple(row) for row in cursor.fetchall()]


def insert(connection: Any, table: Table, rows: Sequence[Row]) -> None:
    """Write rows; one with the same primary key is overwritten."""
    named = _names(connection, table.columns)
    values = f"({', '.join(['%s'] * len(table.columns))})"
    taken = ", ".join(f"{column} = EXCLUDED.{column}" for column in _names(connection, table.others))
    conflict = f"ON CONFLICT ({', '.join(_names(connection, table.key))}) DO "
    conflict += f"UPDATE SET {taken}" if taken else "NOTHING"
    with connection.cursor() as cursor:
        for batch in _batches(connection, rows, len(table.columns)):
            cursor.execute(
                f"INSERT INTO {_name(connection, table)} ({', '.join(named)}) "
                f"VALUES {', '.join([values] * len(batch))} {conflict}",
                [value for row in batch for value in row],
            )


def update(connection: Any, table: Table, rows: Sequence[Row]) -> None:
    """
    Write rows that are there already, in their order; those that are not, are added.

    Not as `insert()` does it, which would lock the rows against new references to them for each unique column.
    """
    if not table.others:
        return
    places = [table.columns.index(column) for column in (*table.others, *table.key)]
    assigned = ", ".join(f"{column} = %s" for column in _names(connection, table.others))
    with connection.cursor() as cursor:
        cursor.executemany(
            f"UPDATE {_name(connection, table)} SET {assigned} WHERE {_is_key(connection, table)}",
            [[row[place] for place in places] for row in rows],
        )
        found = cursor.rowcount
    if found < len(rows):
        insert(connection, table, rows)


def remove(connection: Any, table: Table, rows: Sequence[Row]) -> None:
    """
    Delete rows, also those whose INSERT is decided and not committed here yet.

    Nobody sees such a row, so that DELETE passes it by; who inserts it again waits for it.
    """
    keys = table.keys(rows)
    if delete(connection, table, keys) < len(keys):
        insert(connection, table, rows)
        delete(connection, table, keys)


def delete(connection: Any, table: Table, keys: Sequence[Row]) -> int:
    """Delete rows by their primary keys; return how many were there."""
    single = len(table.key) == 1
    deleted = 0
    with connection.cursor() as cursor:
        for batch in _batches(connection, keys, len(table.key)):
            params = [value for key in batch for value in key]
            if single:
                (column,) = _names(connection, table.key)
                condition = f"{column} IN ({', '.join(['%s'] * len(batch))})"
            else:
                condition = " OR ".join([f"({_is_key(connection, table)})"] * len(batch))
            cursor.execute(f"DELETE FROM {_name(connection, table)} WHERE {condition}", params)
            deleted += cursor.rowcount
    return deleted


def present(connection: Any, table: str, column: str, values: Sequence[Any]) -> set[Any]:
    """Return those of some travelling values that a column of a table holds."""
    name = connection.ops.quote_name(column)
    found: set[Any] = set()
    with connection.cursor() as cursor:
        for batch in _batches(connection, values, 1):
            cursor.execute(
                f"SELECT DISTINCT {as_stored(connection, [column])} FROM {connection.ops.quote_name(table)} "
                f"WHERE {name} IN ({', '.join(['%s'] * len(batch))})",
                batch,
            )
            found.update(row[0] for row in cursor.fetchall())
    return found


def _is_key(connection: Any, table: Table) -> str:
    return " AND ".join(f"{column} = %s" for column in _names(connection, table.key))


def _name(connection: Any, table: Table) -> str:
    return str(connection.ops.quote_name(table.name))


def _names(connection: Any, columns: Sequence[str]) -> list[str]:
    return [connection.ops.quote_name(column) for column in columns]


def _batches(connection: Any, rows: Sequence[Row], width: int) -> Iterator[Sequence[Row]]:
    size = max(1, (connection.features.max_query_params or PARAMETERS) // width)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]

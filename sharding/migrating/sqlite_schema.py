"""
Read the schema of a SQLite database: from its pragmas, and CHECK constraints from the text of its tables.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from typing import Any

from sharding.migrating.schema import Column, Schema, Table

GENERATED = {2: "GENERATED VIRTUAL", 3: "GENERATED STORED"}


def read(connection: Any, tables: Collection[str], sequences: Collection[str], named: Collection[str]) -> Schema:
    """
    Return the schema of those of ``tables`` that exist; SQLite has no sequences, so theirs are tables too.

    Args:
        named: the names of indexes that somebody wrote; other names are left out.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table'")
        texts = dict(cursor.fetchall())
        wanted = sorted({*tables, *sequences} & texts.keys())
        return Schema("sqlite", {table: _table(cursor, table, texts[table], tables, named) for table in wanted})


def _table(cursor: Any, table: str, text: str, tables: Collection[str], named: Collection[str]) -> Table:
    quoted = '"' + table.replace('"', '""') + '"'
    return Table(
        columns=dict(_columns(cursor, quoted)),
        indexes=tuple(_indexes(cursor, table, quoted, named)),
        constraints=(*_foreign_keys(cursor, quoted, tables), *_checks(text)),
    )


def _rows(cursor: Any, sql: str, params: list[Any] | None = None) -> list[Any]:
    cursor.execute(sql, params)
    found: list[Any] = cursor.fetchall()
    return found


def _columns(cursor: Any, quoted: str) -> Iterator[tuple[str, Column]]:
    for _, name, kind, not_null, default, key, hidden in _rows(cursor, f"PRAGMA table_xinfo({quoted})"):
        extra = " ".join(filter(None, [f"PRIMARY KEY {key}" if key else "", GENERATED.get(hidden, "")]))
        # SQLite itself writes some types in capitals, whatever the statement said.
        yield name, Column(kind.lower(), not not_null, default, extra)


def _indexes(cursor: Any, table: str, quoted: str, named: Collection[str]) -> Iterator[str]:
    for _, name, unique, origin, *_ in _rows(cursor, f"PRAGMA index_list({quoted})"):
        if origin == "pk":
            continue
        sql = _rows(cursor, "SELECT sql FROM sqlite_master WHERE type = 'index' AND name = %s", [name])
        # What SQLite makes for UNIQUE inside CREATE TABLE has no text.
        text = sql[0][0] if sql else None
        where = _flat(text.partition(f" ON {quoted} ")[2] or text) if text else _index_columns(cursor, name)
        definition = f"{'UNIQUE ' if unique else ''}{where}"
        yield f"{name}: {definition}" if name in named else definition


def _index_columns(cursor: Any, name: str) -> str:
    quoted = '"' + name.replace('"', '""') + '"'
    columns = [column for _, _, column in _rows(cursor, f"PRAGMA index_info({quoted})")]
    return f"({', '.join(columns)})"


def _foreign_keys(cursor: Any, quoted: str, tables: Collection[str]) -> Iterator[str]:
    for _, _, target, column, to, on_update, on_delete, _ in _rows(cursor, f"PRAGMA foreign_key_list({quoted})"):
        # A foreign key to a table outside of the comparison is made on the control database alone, and on purpose.
        if target in tables:
            actions = f" ON UPDATE {on_update} ON DELETE {on_delete}"
            for nothing in (" ON UPDATE NO ACTION", " ON DELETE NO ACTION"):
                actions = actions.replace(nothing, "")
            yield f"FOREIGN KEY ({column}) REFERENCES {target}({to}){actions}"


def _checks(text: str) -> Iterator[str]:
    for found in re.finditer(r"\bCHECK\s*\(", text, re.IGNORECASE):
        yield f"CHECK {_flat(_enclosed(text, found.end() - 1))}"


def _enclosed(text: str, start: int) -> str:
    """Return the text from the bracket at ``start`` to the one that closes it, with quoted brackets passed over."""
    depth = 0
    quote = ""
    for place in range(start, len(text)):
        letter = text[place]
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"`":
            quote = letter
        elif letter in "()":
            depth += 1 if letter == "(" else -1
            if not depth:
                return text[start : place + 1]
    return text[start:]


def _flat(text: str) -> str:
    return " ".join(text.split())

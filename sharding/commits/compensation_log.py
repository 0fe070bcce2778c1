"""
The log of compensations: what is to be called if a block that commits one database after the other ends half way.

It is written before the first database commits, and deleted after the last one has. On PostgreSQL it lies in the
control database and is committed by a session of its own. A SQLite file takes one writer at a time, which may be the
block itself: there it lies in the first database that commits, as a part of what that commits.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf
from sharding.commits import parts
from sharding.commits.compensations import Compensation
from sharding.commits.decisions import DURABLE
from sharding.commits.sessions import session

TABLE = "sharding_compensation"
#: Of the text of an error that is kept.
MAX_ERROR = 2000


@dataclass(frozen=True, slots=True)
class Log:
    """The log of one block."""

    #: Id of the block, ``<coordinator>.<number>``.
    block: str
    #: The database that holds the log.
    alias: str
    #: The databases that wrote, in the order in which they commit.
    writers: tuple[str, ...]
    #: Those that did commit, once it is known that not all did.
    committed: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One compensation that is still to be called, and how often that has failed."""

    number: int
    path: str
    arguments: str
    failures: int


def write(log: Log, compensations: Sequence[Compensation], connection: Any | None) -> None:
    """Write the log: into the open transaction of a connection, or by a session of its own."""
    rows = [
        (log.block, number, each.path, each.arguments, json.dumps(log.writers))
        for number, each in enumerate(compensations, 1)
    ]
    statement = (
        f"INSERT INTO {TABLE} (block, number, path, arguments, aliases, committed, logged, failures, error) VALUES "
        + ", ".join(["(%s, %s, %s, %s, %s, '', CURRENT_TIMESTAMP, 0, '')"] * len(rows))
    )
    values = [value for row in rows for value in row]
    if connection is None:
        with session(log.alias) as cursor:
            cursor.execute("BEGIN")
            if cursor.db.vendor == "postgresql":
                # A crash of the server must not forget what a shard's commit relies on.
                cursor.execute(f"SELECT {DURABLE}")
            cursor.execute(statement, values)
            cursor.execute("COMMIT")
        return
    with connection.cursor() as cursor:
        cursor.execute(statement, values)


def place(writers: Sequence[str]) -> str:
    """Return the database in which the log of a block over ``writers`` lies."""
    return writers[0] if connections[DEFAULT_DB_ALIAS].vendor == "sqlite" else DEFAULT_DB_ALIAS


def places() -> list[str]:
    """Return the databases in which logs may lie."""
    if connections[DEFAULT_DB_ALIAS].vendor != "sqlite":
        return [DEFAULT_DB_ALIAS]
    return sorted(alias for alias in connections if conf.REPLICA_INFIX not in alias)


def logs(cursor: Any) -> list[Log]:
    """Return the logs that a database holds, the oldest first."""
    if not parts.has_table(cursor.db, TABLE):
        return []
    cursor.execute(f"SELECT block, aliases, committed FROM {TABLE} ORDER BY logged, block, number")
    found = {
        block: Log(block, cursor.db.alias, tuple(json.loads(aliases)), _known(committed))
        for block, aliases, committed in cursor.fetchall()
    }
    return list(found.values())


def numbers(cursor: Any, block: str) -> list[int]:
    """Return the numbers of the compensations of ``block`` that are to be called, in the order of the calls."""
    cursor.execute(f"SELECT number FROM {TABLE} WHERE block = %s ORDER BY number DESC", [block])
    return [number for (number,) in cursor.fetchall()]


@contextmanager
def entry(cursor: Any, block: str, number: int) -> Iterator[Entry | None]:
    """
    Yield one compensation, for this process alone where the database can see to that; None when another one has it.

    What is executed inside commits with the end of it.
    """
    exclusive = cursor.db.vendor == "postgresql"
    if not exclusive:
        # Nobody else could write, not even the compensation itself.
        yield _read(cursor, block, number, "")
        return
    cursor.execute("BEGIN")
    try:
        yield _read(cursor, block, number, " FOR UPDATE SKIP LOCKED")
    except BaseException:
        cursor.execute("ROLLBACK")
        raise
    cursor.execute("COMMIT")


def note_committed(cursor: Any, block: str, committed: Sequence[str]) -> None:
    """Note which databases have committed: from now on nobody needs to ask them."""
    cursor.execute(f"UPDATE {TABLE} SET committed = %s WHERE block = %s", [json.dumps(list(committed)), block])


def note_failure(cursor: Any, block: str, number: int, error: str) -> None:
    """Note that a compensation has failed; it stays in the log."""
    cursor.execute(
        f"UPDATE {TABLE} SET failures = failures + 1, error = %s WHERE block = %s AND number = %s",
        [error[:MAX_ERROR], block, number],
    )


def delete(cursor: Any, block: str, number: int | None = None) -> None:
    """Delete one compensation of ``block``, or the whole log."""
    if number is None:
        cursor.execute(f"DELETE FROM {TABLE} WHERE block = %s", [block])
    else:
        cursor.execute(f"DELETE FROM {TABLE} WHERE block = %s AND number = %s", [block, number])


def _read(cursor: Any, block: str, number: int, lock: str) -> Entry | None:
    cursor.execute(
        f"SELECT number, path, arguments, failures FROM {TABLE} WHERE block = %s AND number = %s{lock}",
        [block, number],
    )
    row = cursor.fetchone()
    return None if row is None else Entry(*row)


def _known(committed: str) -> tuple[str, ...] | None:
    return tuple(json.loads(committed)) if committed else None

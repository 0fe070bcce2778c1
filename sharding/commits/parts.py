"""
The marks that say which databases have committed their part of a block, when they commit one after the other.

Each database commits the mark together with its part. All are written before the first one commits, and so before
anybody else can learn of the block: a database that lets another session insert the same mark has rolled its part back,
for good. One where the part is still open lets the other session wait.
"""

from __future__ import annotations

import os
from collections import defaultdict, deque
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, DatabaseError, IntegrityError

from sharding import conf
from sharding.commits.sessions import session

TABLE = "sharding_part"
COLUMN = "block"

#: Blocks of this process that are settled, by alias: the next mark deletes theirs on its way.
settled: defaultdict[str, deque[str]] = defaultdict(deque)
#: How many are deleted on the way.
BATCH = 100
#: Seconds to wait for a part that is still open.
PATIENCE = 5


def ensure_table(connection: Any, model: Any) -> None:
    """
    Make one of our tables in a database that our migrations do not reach.

    Raises:
        DatabaseError: the role may not make tables.
    """
    if connection.alias in {DEFAULT_DB_ALIAS, *conf.current().shards} and model._meta.db_table == TABLE:
        return
    if has_table(connection, model._meta.db_table):
        return
    statement, _ = connection.SchemaEditorClass(connection).table_sql(model)
    statement = statement.replace("CREATE TABLE", "CREATE TABLE IF NOT EXISTS", 1)
    try:
        if connection.vendor == "sqlite":
            # One session writes at a time, and this one may be it. SQLite rolls the table back with the block.
            with connection.cursor() as cursor:
                cursor.execute(statement)
        else:
            # Nobody else has to wait for the end of the block, and MySQL does not commit it here.
            with session(connection.alias) as cursor:
                cursor.execute(statement)
    except DatabaseError as error:
        if has_table(connection, model._meta.db_table):
            # Another process was faster.
            return
        error.add_note(
            f"Compensations need the table {model._meta.db_table} on {connection.alias!r}. Let its role create tables, "
            f"or create it: {statement}"
        )
        raise


def has_table(connection: Any, table: str) -> bool:
    """Return whether a database has a table; it does not fail, and so breaks no transaction."""
    return table in connection.introspection.table_names()


def write(connection: Any, block: str) -> None:
    """Write the mark of ``block`` into the open transaction of a connection."""
    done = settled[connection.alias]
    forgotten = taken(done)
    try:
        with connection.cursor() as cursor:
            forget(cursor, forgotten)
            cursor.execute(f"INSERT INTO {TABLE} ({COLUMN}) VALUES (%s)", [block])
    except BaseException:
        done.extend(forgotten)
        raise


def taken(done: deque[str]) -> list[str]:
    """Return up to BATCH of the blocks, and take them away."""
    found: list[str] = []
    # Other threads take some, too.
    with suppress(IndexError):
        while len(found) < BATCH:
            found.append(done.popleft())
    return found


def is_committed(alias: str, block: str) -> bool:
    """
    Return whether a database has committed its part of ``block``; False means that it never will.

    Raises:
        DatabaseError: it does not answer, or its part is still open.
    """
    with session(alias) as cursor:
        connection = cursor.db
        if not has_table(connection, TABLE):
            return False
        connection.set_autocommit(False, force_begin_transaction_with_broken_autocommit=True)
        try:
            _limit_waiting(cursor)
            cursor.execute(f"INSERT INTO {TABLE} ({COLUMN}) VALUES (%s)", [block])
        except IntegrityError:
            return True
        finally:
            connection.rollback()
        return False


def committed_blocks(cursor: Any) -> set[str]:
    """Return the blocks whose mark a database holds."""
    if not has_table(cursor.db, TABLE):
        return set()
    cursor.execute(f"SELECT {COLUMN} FROM {TABLE}")
    return {block for (block,) in cursor.fetchall()}


def forget(cursor: Any, blocks: Iterable[str], *, in_passing: bool = False) -> None:
    """Delete the marks of blocks that nobody will ask about any more; ``in_passing`` leaves those that are locked."""
    found = list(blocks)
    for place in range(0, len(found), BATCH):
        some = found[place : place + BATCH]
        wanted = f"SELECT {COLUMN} FROM {TABLE} WHERE {COLUMN} IN ({', '.join(['%s'] * len(some))})"
        if in_passing and cursor.db.vendor == "postgresql":
            # A block that deletes some of them in another order would deadlock with this.
            wanted += " FOR UPDATE SKIP LOCKED"
        # MySQL deletes from no table that a subquery of the statement reads.
        cursor.execute(f"DELETE FROM {TABLE} WHERE {COLUMN} IN (SELECT {COLUMN} FROM ({wanted}) found)", some)


def _limit_waiting(cursor: Any) -> None:
    if cursor.db.vendor == "postgresql":
        # Local, because a pooler would hand it to the next client.
        cursor.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
    elif cursor.db.vendor == "mysql":
        cursor.execute(f"SET SESSION innodb_lock_wait_timeout = {PATIENCE}")


# They are the parent's to forget.
os.register_at_fork(after_in_child=settled.clear)

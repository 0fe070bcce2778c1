"""
New ids of ShardBigIntegerField: blocks of a shard's own sequence, shared by the threads of this process.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

from django.db import connections

from sharding import cluster_map, ids

#: How many ids one call of the sequence reserves on PostgreSQL; the sequence is created with this increment.
BLOCK = 64
SEQUENCE = "sharding_id_sequence"

_lock = threading.Lock()
_blocks: dict[str, Iterator[int]] = {}


def new_bigint(bucket: int) -> int:
    """Return a new id for ``bucket``, numbered by the shard that owns the bucket now."""
    alias = cluster_map.current().owner(bucket)
    return ids.pack_bigint(next_in_sequence(alias), cluster_map.shard_number(alias), bucket)


def next_in_sequence(alias: str) -> int:
    """
    Return the next number of the sequence of ``alias``; it was never returned before, in any process.
    """
    connection = connections[alias]
    if connection.vendor == "sqlite":
        return _next_in_table(alias)
    # The database is asked under the lock: a thread that finds a block used up waits for the next one.
    with _lock:
        number = next(_blocks.get(alias, iter(())), None)
        if number is None:
            with connection.cursor() as cursor:
                cursor.execute(f"SELECT nextval('{SEQUENCE}')")
                first = int(cursor.fetchone()[0])
            _blocks[alias] = iter(range(first, first + BLOCK))
            number = next(_blocks[alias])
    return number


def _next_in_table(alias: str) -> int:
    """
    SQLite has no sequences: count in a row, in the caller's own transaction.

    No block is kept, since a rollback would give the same block to another process.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute(f"UPDATE {SEQUENCE} SET value = value + 1 RETURNING value")
        return int(cursor.fetchone()[0])


def forget() -> None:
    """Drop the reserved numbers: after a fork the parent goes on with them."""
    global _lock
    _lock = threading.Lock()
    _blocks.clear()


os.register_at_fork(after_in_child=forget)

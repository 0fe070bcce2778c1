"""
What the fence adds to a write: the same statements on a table with its triggers and on a copy without them, in turn.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg

from scripts.benchmarks.moves.moving import url
from scripts.benchmarks.rounds import Value

TABLE, COPY = "flights_flight", "unfenced_flight"
#: Single updates in a round, and rows of an INSERT.
SINGLE, BULK = 50, 2000


# The first digits of an id have its bucket.
_OTHER = "(left(id::text, 24) || right(gen_random_uuid()::text, 12))::uuid"


def values(rounds: int) -> Iterator[Value]:
    """Yield the microseconds by which a write of one row takes longer, and each row of many."""
    with psycopg.connect(url("shard_a"), autocommit=True) as session:
        session.execute(f"CREATE TABLE {COPY} (LIKE {TABLE} INCLUDING ALL)")
        session.execute(f"INSERT INTO {COPY} SELECT * FROM {TABLE}")
        session.execute(f"VACUUM ANALYZE {COPY}")
        ids = [key for (key,) in session.execute(f"SELECT id FROM {TABLE} ORDER BY random() LIMIT 500")]
        single = _more(rounds, lambda table: _update(session, table, ids))
        bulk = _more(rounds, lambda table: _insert(session, table))
        session.execute(f"DROP TABLE {COPY}")
    yield Value("fence_us_single", "what the fence adds to an UPDATE of one row", single, "µs")
    yield Value("fence_us_bulk_row", f"and to each of {BULK} rows of an INSERT", bulk, "µs")


def _more(rounds: int, measured: Callable[[str], float]) -> float:
    """Return the median of how many microseconds more one row takes with triggers, of paired rounds."""
    more = []
    for turn in range(rounds + 1):
        taken = {table: measured(table) for table in random.sample([TABLE, COPY], 2)}
        if turn:
            more.append(taken[TABLE] - taken[COPY])
    return statistics.median(more) * 1e6


def _update(session: Any, table: str, ids: list[Any]) -> float:
    begun = time.perf_counter()
    for key in random.sample(ids, min(SINGLE, len(ids))):
        session.execute(f"UPDATE {table} SET number = number + 1 WHERE id = %s", [key])
    return (time.perf_counter() - begun) / SINGLE


def _insert(session: Any, table: str) -> float:
    """Insert copies of rows, of which nothing stays."""
    with session.transaction(force_rollback=True):
        session.execute(f"CREATE TEMP TABLE given ON COMMIT DROP AS SELECT * FROM {TABLE} LIMIT {BULK}")
        session.execute(f"UPDATE given SET id = {_OTHER}")
        begun = time.perf_counter()
        rows = int(session.execute(f"INSERT INTO {table} SELECT * FROM given").rowcount)
        taken = time.perf_counter() - begun
    return taken / rows

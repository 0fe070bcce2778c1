"""
How fast the rows of a bucket go over, with all that a move does for it, against a bare COPY from server to server.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

import psycopg

from scripts.benchmarks.moves import moving
from scripts.benchmarks.rounds import Value

TABLES = ("flights_plane", "flights_flight")


#: The target checks what its rows refer to, whoever writes them.
_REFERS = """
ALTER TABLE bare_flights_flight
ADD FOREIGN KEY (carrier_id) REFERENCES flights_airline DEFERRABLE INITIALLY DEFERRED
"""


def values(moves: int) -> Iterator[Value]:
    """Yield the rows a second of the copy relative to those of a bare one, each next to the other."""
    bucket = moving.buckets("shard_a")[0]
    ratios = []
    with moving.mover() as mover:
        # To and fro, and once before it counts.
        for turn in range(-2, 2 * ((moves + 1) // 2)):
            source, target = ("shard_a", "shard_b")[:: 1 if turn % 2 == 0 else -1]
            bare = _bare(bucket, source, target)
            steps = mover.carry(moving.plan((bucket, target)), window=0.0, **moving.UNTHROTTLED)
            if turn >= 0:
                ratios.append(bare / (steps["Copy"] - steps["Capture"]))
    yield Value(
        "copy_ratio",
        "rows a second of a move's copy",
        statistics.median(ratios),
        "of a bare COPY's",
        0.5,
        at_least=True,
    )


def _bare(bucket: int, source: str, target: str) -> float:
    """Copy the rows into tables like theirs that have no fence, in one transaction; return the seconds."""
    with psycopg.connect(moving.url(source)) as giving, psycopg.connect(moving.url(target)) as getting:
        for table in TABLES:
            getting.execute(f"CREATE TABLE bare_{table} (LIKE {table} INCLUDING ALL)")
        getting.execute(_REFERS)
        getting.commit()
        begun = time.perf_counter()
        for table in TABLES:
            reading = f"COPY (SELECT * FROM {table} WHERE bucket = {bucket}) TO STDOUT (FORMAT BINARY)"
            with (
                giving.cursor().copy(reading) as rows,
                getting.cursor().copy(f"COPY bare_{table} FROM STDIN (FORMAT BINARY)") as into,
            ):
                for block in rows:
                    into.write(block)
        getting.commit()
        taken = time.perf_counter() - begun
        for table in TABLES:
            getting.execute(f"DROP TABLE bare_{table}")
    return taken

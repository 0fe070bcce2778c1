"""
What the buckets that stay notice of a move beside them, at the speed at which movers go by default.
"""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from scripts.benchmarks.moves import moving
from scripts.benchmarks.rounds import Value

#: Seconds between two operations, as of a client that also does something else.
PAUSE = 0.002


def values(moves: int) -> Iterator[Value]:
    """Yield the median latency of reads and writes of rows during moves relative to that without any, in turn."""
    bucket, other = moving.buckets("shard_a")[:2]
    beside = moving.buckets("shard_b")[0]
    ratios = []
    with (
        moving.mover() as mover,
        psycopg.connect(moving.url("shard_a"), autocommit=True) as one,
        psycopg.connect(moving.url("shard_b"), autocommit=True) as two,
    ):
        places = [(session, key) for session, its in ((one, other), (two, beside)) for key in _keys(session, its)]
        # To and fro, and once before it counts.
        for turn in range(-2, 2 * ((moves + 1) // 2)):
            plan = moving.plan((bucket, ("shard_b", "shard_a")[turn % 2]))
            over = threading.Event()
            carrying = threading.Thread(target=_carry, args=(mover, plan, over))
            carrying.start()
            busy = _latency(places, over.is_set)
            carrying.join()
            until = time.monotonic() + busy[1]
            quiet = _latency(places, lambda until=until: time.monotonic() > until)
            if turn >= 0:
                ratios.append(busy[0] / quiet[0])
    yield Value(
        "neighbour_latency_ratio",
        "point reads and writes of other buckets beside a move",
        statistics.median(ratios),
        "of the time without one",
        1.2,
    )


def _carry(mover: moving.MoverProcess, plan: str, over: threading.Event) -> None:
    try:
        mover.carry(plan, window=0.0)
    finally:
        over.set()


def _keys(session: Any, bucket: int) -> list[Any]:
    found = session.execute("SELECT id FROM flights_flight WHERE bucket = %s ORDER BY random() LIMIT 300", [bucket])
    return [key for (key,) in found]


def _latency(places: list[Any], is_over: Any) -> tuple[float, float]:
    """Return the median seconds of an operation, and for how long it was measured."""
    times: list[float] = []
    begun = time.monotonic()
    while not is_over() or len(times) < 100:
        session, key = random.choice(places)
        before = time.perf_counter()
        if len(times) % 2:
            session.execute("UPDATE flights_flight SET number = number WHERE id = %s", [key])
        else:
            session.execute("SELECT * FROM flights_flight WHERE id = %s", [key]).fetchone()
        times.append(time.perf_counter() - before)
        time.sleep(PAUSE)
    return statistics.median(times), time.monotonic() - begun

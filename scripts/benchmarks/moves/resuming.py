"""
How long a move takes whose mover was killed in the middle of its copy, for the mover after it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import psycopg

from scripts.benchmarks.moves import moving
from scripts.benchmarks.rounds import Value

#: Seconds that a copy takes at least, so that there is a middle.
COPY = 2.0


def values(moves: int) -> Iterator[Value]:
    """Yield the time from the kill to the switch relative to that of a move that nobody disturbs."""
    bucket = moving.buckets("shard_c")[0]
    with psycopg.connect(moving.url("shard_c")) as session:
        query = "SELECT count(*) FROM flights_flight WHERE bucket = %s"
        ((rows,),) = session.execute(query, [bucket]).fetchall()
    ratios = []
    with moving.mover() as mover:
        for _ in range(moves):
            options = {**moving.UNTHROTTLED, "window": 0.0, "rows_per_second": rows / COPY}
            whole = _undisturbed(mover, moving.plan((bucket, "shard_d")), options)
            ratios.append(_killed(mover, moving.plan((bucket, "shard_c")), options) / whole)
    yield Value(
        "resume_ratio",
        "a move that goes on after a kill in mid-copy",
        statistics.median(ratios),
        "of a whole move's time",
    )


def _undisturbed(mover: moving.MoverProcess, plan: str, options: dict[str, Any]) -> float:
    """Return the seconds of a move up to the switch."""
    steps = mover.carry(plan, **options)
    return steps["Forward"] - steps["Begin"]


def _killed(mover: moving.MoverProcess, plan: str, options: dict[str, Any]) -> float:
    """Kill a mover in the middle of its copy, and return the seconds from then to the switch."""
    with moving.mover() as victim:
        victim.hand(plan, **options)
        for facts in victim.told():
            if facts["step"] == "Capture":
                break
        time.sleep(COPY / 2)
        victim.process.kill()
        victim.process.wait()
        killed = time.time()
    return mover.carry(plan, **options)["Forward"] - killed

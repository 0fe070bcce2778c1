"""
How long a move takes whose mover was killed in the middle of its copy, for the mover after it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator

from scripts.benchmarks.moves import moving
from scripts.benchmarks.rounds import Value


def values(moves: int) -> Iterator[Value]:
    """Yield the time from the kill to the switch relative to that of a move that nobody disturbs."""
    bucket = moving.buckets("shard_c")[0]
    ratios = []
    with moving.mover() as mover:
        for _ in range(moves):
            whole, copy = _undisturbed(mover, bucket, "shard_d")
            rest = _killed(mover, bucket, "shard_c", copy / 2)
            ratios.append(rest / whole)
    yield Value(
        "resume_ratio",
        "a move that goes on after a kill in mid-copy",
        statistics.median(ratios),
        "of a whole move's time",
    )


def _undisturbed(mover: moving.MoverProcess, bucket: int, target: str) -> tuple[float, float]:
    """Return the seconds of a move up to the switch, and of its copy."""
    steps = mover.carry(moving.plan((bucket, target)), window=0.0, **moving.UNTHROTTLED)
    return steps["Forward"] - steps["Begin"], steps["Copy"] - steps["Capture"]


def _killed(mover: moving.MoverProcess, bucket: int, target: str, after: float) -> float:
    plan = moving.plan((bucket, target))
    with moving.mover() as victim:
        victim.hand(plan, window=0.0, **moving.UNTHROTTLED)
        for facts in victim.told():
            if facts["step"] == "Capture":
                break
        time.sleep(after)
        victim.process.kill()
        victim.process.wait()
        killed = time.time()
    steps = mover.carry(plan, window=0.0, **moving.UNTHROTTLED)
    return steps["Forward"] - killed

"""
How a mover works: how fast, how long it waits, and when it gives way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

#: Buckets of one round at most: the name of a session has room for no more, beside a generation of 16 digits.
MOST_TOGETHER: Final = 8


def _never() -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Options:
    """What the operator may choose; times are in seconds."""

    #: For which a move can be taken back.
    window: float = 600.0
    #: That one chunk of the copy should take, for which its rows are in one transaction.
    chunk: float = 0.2
    #: The part of the time in which rows are copied; the rest is for the application.
    share: float = 0.5
    #: The most rows a second, or None.
    rows_per_second: float | None = None
    #: A standby of either shard that is farther behind lets the mover wait, if the role may know; None for no limit.
    replica_lag: float | None = 10.0
    #: A shard whose answers take longer lets the mover wait; None for no limit.
    latency: float | None = 0.25
    #: Moves that have one shard as source or target at the same time.
    per_shard: int = 2
    #: Small buckets that go over in one round at most, and the rows that these have by the plan; others go alone.
    together: int = MOST_TOGETHER
    rows_together: int = 50_000
    #: After which the source opens again if a bucket that nobody can write is not decided upon.
    fenced: float = 2.0
    #: After which an attempt that gives no sign of life is taken over, although its session is there.
    silence: float = 60.0
    #: The same where nobody can write the bucket meanwhile.
    silence_fenced: float = 5.0
    #: Whether to stop as soon as the move may rest.
    stop: Callable[[], bool] = _never

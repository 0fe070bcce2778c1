"""
How long a plan takes: what is copied, and what each round takes besides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from sharding.rebalance.options import Options
from sharding.rebalance.plan import Plan, PlannedMove


@dataclass(frozen=True, slots=True)
class Rate:
    """How fast moves are: bytes a second while one is copied, and seconds that each round takes besides."""

    bytes: float = 20 * 1024 * 1024
    seconds: float = 1.0
    #: Where the figures come from: whoever reads a time has to know.
    source: str = "assumed"

    def time_for(self, plan: Plan) -> timedelta:
        """Return how long the moves of a plan take, one round after the other."""
        return timedelta(seconds=rounds(plan.moves) * self.seconds + plan.bytes / self.bytes)


def rounds(moves: Iterable[PlannedMove]) -> int:
    """Return in how many rounds moves go over, as movers take them: small ones of one pair of shards together."""
    number, open_rounds = 0, dict[tuple[str, str], tuple[int, int]]()
    options = Options()
    for move in moves:
        pair = (move.source, move.target)
        buckets, rows = open_rounds.get(pair, (options.together, 0))
        if buckets == options.together or rows + move.rows > options.rows_together:
            number, buckets, rows = number + 1, 0, 0
        open_rounds[pair] = (buckets + 1, rows + move.rows)
    return number

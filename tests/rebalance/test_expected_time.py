"""How long a plan takes: by its bytes, and by the rounds in which movers take its moves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from sharding.bucket_map import BucketMap
from sharding.rebalance import planning
from sharding.rebalance.expected_time import Rate, rounds
from sharding.rebalance.load import Size
from sharding.rebalance.plan import PlannedMove
from sharding.rebalance.request import Request, Shard

MB = 1024 * 1024


def moves(pair, *rows):
    source, target = pair
    return [PlannedMove(bucket, source, target, count, 0, "a test") for bucket, count in enumerate(rows)]


@pytest.mark.parametrize(
    ("planned", "number"),
    [
        ([], 0),
        (moves("ab", 10), 1),
        # Eight at most.
        (moves("ab", *[10] * 8), 1),
        (moves("ab", *[10] * 9), 2),
        # Not more than 50,000 rows together, and large ones alone.
        (moves("ab", 50_000, 1), 2),
        (moves("ab", 90_000, 90_000), 2),
        (moves("ab", 20_000, 20_000, 20_000), 2),
        # Each pair of shards by itself, in whatever order.
        ([*moves("ab", 1), *moves("ac", 1), *moves("ab", 1), *moves("ba", 1)], 3),
    ],
)
def test_rounds(planned, number):
    assert rounds(planned) == number


def test_bytes_and_rounds():
    request = Request(
        map=BucketMap(7, ("a",) * 20),
        shards=(Shard("a"), Shard("b")),
        sizes={bucket: Size(10, 5 * MB) for bucket in range(20)},
    )
    plan = planning.drain(request, ["a"])
    assert len(plan.moves) == 20
    assert Rate(bytes=10 * MB, seconds=2).time_for(plan) == timedelta(seconds=3 * 2 + 10)

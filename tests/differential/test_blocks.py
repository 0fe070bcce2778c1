"""
Random blocks over several databases, committed and rolled back: they leave what they leave on one database.

``pytest tests/differential --long`` runs many more, with new random numbers each time.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
from django.db import connections
from hypothesis import HealthCheck, given, settings

from sharding.testing import cluster
from tests.differential import blocks
from tests.differential.blocks import Block, Run
from tests.differential.data import REFERENCE
from tests.layouts import CLUSTER

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.differential]

PROGRAMS = min(150, int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 2_200)) // 4)
LONG = 5_000
LAYOUTS = [
    pytest.param(("default", "shard_a", "shard_b", "shard_c"), id="default owns too"),
    pytest.param(("shard_a", "shard_b"), id="shards alone", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("owners", LAYOUTS)
def test_blocks(owners: tuple[str, ...], request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    long = request.config.getoption("--long")
    tally: Counter[str] = Counter()

    @settings(
        max_examples=LONG if long else PROGRAMS,
        derandomize=not long,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(blocks.programs)
    def check(program: tuple[Block, ...]) -> None:
        blocks.clear()
        expected = Run(REFERENCE).program(program)
        found = Run("cluster").program(program)
        assert found == expected
        assert not any(connections[alias].in_atomic_block for alias in CLUSTER)
        for block in program:
            tally.update(block.constructs())
        tally["refused"] += expected.count("refused")

    door: Any = connections["default"]
    before = _number(door)
    with cluster.owners(*owners):
        try:
            check()
        finally:
            blocks.clear()
    tally["two-phase commit"] = _number(door) - before - 1
    with capsys.disabled():
        print("\nblocks: " + ", ".join(f"{name} {number}" for name, number in tally.most_common()))
    assert _prepared() == []
    assert min(tally[name] for name in WORTHWHILE) >= PROGRAMS // 20, tally


#: What a run without would not be worth its name.
WORTHWHILE = (
    *("kept", "rolled back", "nested kept", "nested rolled back"),
    *("global create", "on_commit", "refused", "two-phase commit"),
)


def _number(door: Any) -> int:
    """Return how many transactions over several databases this thread has numbered, this one among them."""
    return int(door.coordinator.next_transaction().rpartition(".")[2])


def _prepared() -> list[Any]:
    found: list[Any] = []
    for alias in CLUSTER:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
            found += cursor.fetchall()
    return found

"""
Random programs over rows with second keys, on a cluster of four databases and on one reference database: equal.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sharding.lookups import states
from sharding.testing import cluster
from tests.differential import lookup_programs
from tests.differential.data import REFERENCE

PROGRAMS = int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 2_200)) // 6
LONG = 10_000

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.differential]


@pytest.fixture(scope="module")
def four_owners(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners("default", "shard_a", "shard_b", "shard_c"):
        states.forget()
        yield


def test_programs(four_owners: None, request: pytest.FixtureRequest) -> None:
    """The cluster answers every step as one database does, and leaves no entry behind that its rows do not ask for."""
    long = request.config.getoption("--long")
    taken = answered = 0

    @settings(
        max_examples=LONG if long else PROGRAMS,
        derandomize=not long,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(lookup_programs.programs)
    def check(program: list[Any]) -> None:
        nonlocal taken, answered
        expected = lookup_programs.run(program, REFERENCE)
        found = lookup_programs.run(program, "cluster")
        assert found == expected, f"\none database: {expected!r}\ncluster:      {found!r}"
        answers = str(expected[0])
        taken += answers.count("taken")
        answered += answers.count(",")

    check()
    # The run was worth its name.
    assert taken > answered / 50

"""
Random reads of rows whose primary key has two columns, on a cluster of four databases and on one reference database.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sharding.testing import cluster
from tests.differential import ledger_programs
from tests.differential.data import REFERENCE

PROGRAMS = int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 2_200)) // 4
LONG = 20_000

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.differential]


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners("default", "shard_a", "shard_b", "shard_c"):
        ledger_programs.load()
        yield
        ledger_programs.clear()


def test_programs(rows: None, request: pytest.FixtureRequest) -> None:
    """The cluster answers every question as one database does, and refuses none."""
    long = request.config.getoption("--long")

    @settings(
        max_examples=LONG if long else PROGRAMS,
        derandomize=not long,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(ledger_programs.programs)
    def check(program: ledger_programs.Read) -> None:
        expected = ledger_programs.run(program, REFERENCE)
        found = ledger_programs.run(program, "cluster")
        assert found == expected, f"\none database: {expected!r}\ncluster:      {found!r}"

    check()

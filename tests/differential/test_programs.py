"""
Random programs on a cluster of four databases and on one reference database: equal, or refused.

``pytest tests/differential --long`` runs many more, with new random numbers each time.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from sharding.errors import CannotMerge, ShardingError
from sharding.testing import cluster
from tests.differential import data
from tests.differential.execution import run, same
from tests.differential.programs import Read, Write, programs
from tests.differential.tally import Tally

PROGRAMS = int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", "2000"))
LONG = 50_000

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.differential]


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners("default", "shard_a", "shard_b", "shard_c"):
        data.load()
        yield
        data.clear()


def test_programs(rows: None, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """The cluster answers every random program as one database does, or refuses it."""
    tally = Tally()
    long = request.config.getoption("--long")

    @settings(
        max_examples=LONG if long else PROGRAMS,
        derandomize=not long,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(programs)
    def check(program: Read | Write) -> None:
        tally.note(program)
        expected = run(program, data.REFERENCE)
        try:
            found = run(program, "cluster")
        except ShardingError as error:
            tally.note_refusal(program, getattr(error, "construct", type(error).__name__))
            assert isinstance(error, CannotMerge), error
        else:
            assert same(expected, found), f"\none database: {expected!r}\ncluster:      {found!r}"

    check()
    with capsys.disabled():
        print(f"\n{tally.report()}")
    tally.verify()

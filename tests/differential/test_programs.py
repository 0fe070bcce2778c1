"""
Random programs on a cluster of four databases and on one reference database: equal, or refused. Each shard has rows of
another, as in the middle of moves.

``pytest tests/differential --long`` runs many more, with new random numbers each time.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from itertools import count

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis.strategies import SearchStrategy

from sharding.errors import CannotMerge
from sharding.testing import cluster
from tests import moved_rows
from tests.differential import data
from tests.differential.execution import run, same
from tests.differential.programs import SHARES, Read, Write
from tests.differential.tally import LEAST_OF_EACH, Tally

FULL = 2_200
#: Mutated code is tried with fewer programs.
PROGRAMS = int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", FULL))
LONG = int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 50_000))
#: Hypothesis varies what it has tried, so that one long series would hardly know some of the constructs.
BATCH = 20
#: Of so many reads, before one the process is made to believe again that nothing is hidden.
FORGETTING = 4

pytestmark = [pytest.mark.django_db(databases="__all__", transaction=True), pytest.mark.differential]


@pytest.fixture
def rows(transactional_db: None) -> Iterator[None]:
    with cluster.owners("default", "shard_a", "shard_b", "shard_c"):
        data.load()
        with moved_rows.on_the_next_shard(data.MODELS[::-1]):
            yield
        data.clear()


def test_programs(rows: None, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """The cluster answers every random program as one database does, or refuses it."""
    tally = Tally()
    long = request.config.getoption("--long")
    numbers = count() if not long else iter(lambda: random.randrange(2**64), None)
    for strategy, share in SHARES.values():
        left = (LONG if long else PROGRAMS) * share // 1_000
        while left > 0:
            _try(strategy, min(left, BATCH), tally, number=next(numbers))
            left -= BATCH
    with capsys.disabled():
        print(f"\n{tally.report()}")
    tally.verify(least_of_each=LEAST_OF_EACH if PROGRAMS >= FULL else 0)


def _try(strategy: SearchStrategy[Read | Write], programs: int, tally: Tally, *, number: int) -> None:
    @seed(number)
    @settings(
        max_examples=programs,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def check(program: Read | Write) -> None:
        tally.note(program)
        expected = run(program, data.REFERENCE)
        if isinstance(program, Read) and len(repr(program)) % FORGETTING == 0:
            moved_rows.forget()
        try:
            found = run(program, "cluster")
        except CannotMerge as refusal:
            tally.note_refusal(program, refusal.construct)
        else:
            assert same(expected, found), f"\none database: {expected!r}\ncluster:      {found!r}"

    check()

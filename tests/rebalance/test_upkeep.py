"""
What tables need when many rows have come or gone.
"""

from __future__ import annotations

import pytest

from sharding.rebalance.upkeep import analyze, vacuum
from tests.layouts import CLUSTER
from tests.rebalance.rows import family
from tests.rebalance.worlds import BUCKET

pytestmark = pytest.mark.django_db(databases=CLUSTER)

KNOWN = "SELECT most_common_vals::text FROM pg_stats WHERE tablename = 'rows_parent' AND attname = 'bucket'"


def test_space_is_given_back(world):
    assert vacuum(world.sessions.target, [table.name for table in world.facts.tables]) == []


@pytest.mark.parametrize("made", [analyze, vacuum])
def test_the_planner_knows_a_bucket_that_has_arrived(world, made):
    family(world, 1, 40)
    assert made(world.sessions.source, ["rows_parent"]) == []
    assert world.sessions.source.connection.execute(KNOWN).fetchall() == [(f"{{{BUCKET}}}",)]


def test_a_table_that_somebody_has_locked_is_left_to_autovacuum(world):
    with world.application.connection.transaction():
        world.write("LOCK TABLE rows_parent IN ACCESS EXCLUSIVE MODE")
        assert analyze(world.sessions.source, ["rows_parent"]) == []
        assert vacuum(world.sessions.source, ["rows_parent"]) == []

"""
Taking the rows of a bucket away from a shard.
"""

from __future__ import annotations

import pytest

from sharding.bucket_states import BucketState
from sharding.errors import Superseded
from sharding.rebalance import tables
from sharding.rebalance.copying import Pace, copy_all
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.purging import Purge
from tests.layouts import CLUSTER
from tests.rebalance.rows import TYPES, family, tree
from tests.rebalance.worlds import BUCKET, GENERATION, OTHER_BUCKET, TABLES, fence, rows

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.mark.parametrize("circle", [False, True])
def test_every_row_of_the_bucket_goes_and_none_of_another(world, circle):
    family(world, 1, 30)
    family(world, 101, 103, OTHER_BUCKET)
    world.write(TYPES)
    tree(world, range(1, 30), lambda n: n + 1 if n < 29 else 10 if circle else None)
    purge = Purge(world.sessions.source, [world.facts], {BucketState.CAPTURING}, batch=4)
    assert purge.run() == 90 + 4 + 29
    assert {table: rows(world.application, table) for table in TABLES} == {table: [] for table in TABLES}
    assert len(rows(world.application, "rows_child", OTHER_BUCKET)) == 3
    assert world.log() == []
    assert purge.run() == 0


def test_a_copy_begins_anew_after_its_target_was_purged(world):
    family(world, 1, 30)
    copy_all(world.sessions, world.facts, Pace())
    Purge(world.sessions.target, [world.facts]).run()
    assert copy_all(world.sessions, world.facts, Pace()) == 90
    world.assert_alike()


def test_rows_that_are_in_use_are_not_deleted(world):
    family(world, 1, 3)
    with pytest.raises(Superseded, match="is capturing, where attempt 11 expected importing or moved"):
        Purge(world.sessions.source, [world.facts]).run()
    fence(world.sessions.source, BucketState.MOVED, generation=12)
    with pytest.raises(Superseded, match="in the hands of attempt 12, and no longer of attempt 11"):
        Purge(world.sessions.source, [world.facts]).run()
    assert len(rows(world.application, "rows_parent")) == 3


CIRCLES = """
CREATE TABLE around_group (id integer PRIMARY KEY, bucket smallint NOT NULL);
CREATE TABLE around_node (
    id integer PRIMARY KEY, bucket smallint NOT NULL, group_id integer NOT NULL REFERENCES around_group,
    above_id integer REFERENCES around_node
);
CREATE TABLE around_leaf (id integer PRIMARY KEY, bucket smallint NOT NULL, node_id integer REFERENCES around_node);
CREATE TABLE around_twig (
    id integer PRIMARY KEY, bucket smallint NOT NULL, leaf_id integer REFERENCES around_leaf,
    above_id integer REFERENCES around_twig
);
INSERT INTO around_group SELECT n, 7 FROM generate_series(1, 9) n;
INSERT INTO around_node SELECT n, 7, n, nullif(n - 1, 0) FROM generate_series(1, 9) n;
INSERT INTO around_leaf SELECT n, 7, n FROM generate_series(1, 9) n;
INSERT INTO around_twig SELECT n, 7, n, nullif(n - 1, 0) FROM generate_series(1, 9) n;
"""


@pytest.fixture
def around(world):
    """Tables that refer to others which refer to themselves, and to which such tables refer."""
    names = ("around_group", "around_leaf", "around_node", "around_twig")
    world.write(CIRCLES)
    yield tables.parents_first(tables.read(world.sessions.source, names))
    world.write(f"DROP TABLE {', '.join(names)}")


@pytest.mark.parametrize("batch", [4, 5000])
def test_what_refers_to_itself_goes_before_that_to_which_it_refers(world, around, batch):
    facts = MoveFacts(BUCKET, GENERATION, around)
    assert Purge(world.sessions.source, [facts], {BucketState.CAPTURING}, batch=batch).run() == 36
    assert [rows(world.application, table.name) for table in around] == [[]] * 4

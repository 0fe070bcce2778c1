"""
Bringing over what is written meanwhile, by the log.
"""

from __future__ import annotations

import pytest

from sharding.bucket_states import BucketState
from sharding.errors import CopyDamaged, CopyRefused, Superseded
from sharding.rebalance.capturing import drain
from sharding.rebalance.copying import Pace, copy_all, copy_chunk
from tests.layouts import CLUSTER
from tests.rebalance.rows import family, instants, tree
from tests.rebalance.worlds import fence

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def copied(world):
    family(world, 1, 20)
    tree(world, range(1, 10), lambda n: n + 1 if n < 9 else None)
    instants(world)
    copy_all(world.sessions, world.facts, Pace())
    drain_all(world)
    return world


def drain_all(world, batch=2000):
    while drain(world.sessions, world.facts, batch=batch).left:
        pass


@pytest.mark.parametrize("batch", [1, 2, 2000])
@pytest.mark.parametrize(
    "statements",
    [
        ["UPDATE rows_child SET text = 'new' WHERE number < 9", "DELETE FROM rows_grandchild WHERE id = 20"],
        ["DELETE FROM rows_grandchild", "DELETE FROM rows_child", "DELETE FROM rows_parent"],
        ["DELETE FROM rows_child", "DELETE FROM rows_parent"],
        # Values that must be unique change places.
        [
            "UPDATE rows_parent SET name = NULL WHERE name = '7 1'",
            "UPDATE rows_parent SET name = '7 1' WHERE name = '7 2'",
            "UPDATE rows_parent SET name = '7 2' WHERE name IS NULL",
        ],
        # A row goes, and another one gets its unique value.
        [
            "DELETE FROM rows_child WHERE number = 3",
            "DELETE FROM rows_parent WHERE name = '7 3'",
            "INSERT INTO rows_parent VALUES ('00000000-0000-7000-8000-000000000099', 7, 1, '7 3')",
        ],
        # What goes with its parent in the database is another's before.
        ["UPDATE rows_grandchild SET tenant = 2, number = 2 WHERE id = 1", "DELETE FROM rows_child WHERE number = 1"],
        ["UPDATE rows_tree SET above_id = NULL WHERE above_id = 5", "DELETE FROM rows_tree WHERE id = 5 OR id < 5"],
        ["UPDATE rows_when SET n = 8", "UPDATE rows_when SET price = 1.000 WHERE price = 1.0"],
        # The database gives such a row another number, to which no column is set by an UPDATE.
        [
            "DELETE FROM rows_grandchild WHERE id = 3",
            "DELETE FROM rows_child WHERE number = 3",
            "INSERT INTO rows_child VALUES (0, 3, 7)",
        ],
        ["UPDATE rows_parent SET bucket = 8 WHERE name = '7 9'", "UPDATE rows_parent SET bucket = 7 WHERE bucket = 8"],
    ],
    ids=["plain", "deletes", "cascade", "swap", "taken", "parent", "tree", "keys", "counted", "there and back"],
)
def test_what_was_written_arrives(copied, batch, statements):
    for statement in statements:
        copied.write(statement)
    drain_all(copied, batch)
    copied.assert_alike()
    assert copied.log() == []


@pytest.mark.parametrize("batch", [1, 2000])
def test_what_refers_to_new_rows_arrives_in_any_order(copied, batch):
    with copied.application.connection.transaction():
        copied.write(
            "INSERT INTO rows_grandchild (id, bucket, tenant, number) OVERRIDING SYSTEM VALUE VALUES (77, 7, 9, 9)"
        )
        copied.write("INSERT INTO rows_child VALUES (9, 9, 7, 'x', '00000000-0000-7000-8000-000000000077')")
        copied.write("INSERT INTO rows_parent VALUES ('00000000-0000-7000-8000-000000000077', 7, 1)")
        for number in range(50, 60):
            copied.write("INSERT INTO rows_tree VALUES (%s, 7, %s)", number, number + 1 if number < 59 else None)
    drain_all(copied, batch)
    copied.assert_alike()


def test_entries_of_rows_that_are_still_to_come_go_alone(world):
    family(world, 1, 20)
    copy_chunk(world.sessions, world.facts, Pace(sizes={"rows_parent": 5}))
    world.write("UPDATE rows_parent SET tenant = 5")
    drained = drain(world.sessions, world.facts)
    assert (drained.left, world.log()) == (0, [])
    assert world.at_target("SELECT count(*), sum(tenant) FROM rows_parent") == [(5, 25)]
    copy_all(world.sessions, world.facts, Pace())
    world.assert_alike()


def test_an_attempt_that_is_superseded_writes_nothing(copied):
    copied.write("DELETE FROM rows_grandchild")
    fence(copied.sessions.target, BucketState.IMPORTING, generation=12)
    with pytest.raises(Superseded) as caught:
        drain(copied.sessions, copied.facts)
    assert (caught.value.bucket, caught.value.alias, caught.value.found) == (7, "shard_b", 12)
    assert len(copied.log()) == 20


def test_a_row_that_the_target_does_not_take_is_named(copied):
    copied.at_target("INSERT INTO rows_parent VALUES ('00000000-0000-7000-8000-000000000066', 8, 1, 'taken')")
    copied.write("UPDATE rows_parent SET name = 'taken' WHERE name = '7 1'")
    with pytest.raises(CopyRefused, match="'shard_b' does not take rows of rows_parent") as caught:
        drain(copied.sessions, copied.facts)
    assert (caught.value.table, caught.value.constraint) == ("rows_parent", "rows_parent_name_key")
    assert len(copied.log()) == 2


@pytest.fixture
def meddling(world):
    world.at_target(
        "CREATE FUNCTION rows_meddle() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN NEW.text = 'changed'; RETURN NEW; END $$"
    )
    world.at_target(
        "CREATE TRIGGER meddle BEFORE INSERT OR UPDATE ON rows_child FOR EACH ROW EXECUTE FUNCTION rows_meddle()"
    )
    yield
    world.at_target("DROP FUNCTION rows_meddle CASCADE")


def test_a_trigger_that_changes_rows_is_found_out(world, meddling):
    family(world, 1, 5)
    with pytest.raises(CopyDamaged) as caught:
        copy_all(world.sessions, world.facts, Pace())
    assert (caught.value.table, caught.value.last) == ("rows_child", "[2, 5]")
    assert world.at_target("SELECT count(*) FROM rows_child") == [(0,)]

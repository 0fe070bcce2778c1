"""
Copying the rows of a bucket in chunks: every kind of row arrives as it was, and nothing else does.
"""

from __future__ import annotations

import json

import pytest

from sharding.rebalance import progress
from sharding.rebalance.capturing import drain
from sharding.rebalance.copying import Pace, copy_all, copy_chunk
from tests.clocks import change_time
from tests.layouts import CLUSTER
from tests.rebalance.rows import TYPES, family, instants, tree
from tests.rebalance.worlds import OTHER_BUCKET, rows

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def small(size=10):
    return Pace(sizes=dict.fromkeys(("rows_parent", "rows_child", "rows_grandchild", "rows_tree", "rows_types"), size))


def test_an_empty_bucket_is_copied_at_once(world):
    assert copy_all(world.sessions, world.facts, Pace()) == 0
    assert world.at_target("SELECT count(*), bool_and(done) FROM sharding_progress") == [
        (len(world.facts.tables), True)
    ]
    assert copy_chunk(world.sessions, world.facts, Pace()).table is None


def test_rows_of_a_bucket_arrive_with_those_to_which_they_refer(world):
    family(world, 1, 95)
    family(world, 101, 120, OTHER_BUCKET)
    assert copy_all(world.sessions, world.facts, small()) == 3 * 95
    world.assert_alike()
    assert rows(world.sessions.target, "rows_parent", OTHER_BUCKET) == []
    assert world.at_target("SELECT loud FROM rows_parent ORDER BY id LIMIT 1") == [("7 1",)]


def test_every_type_of_value_arrives_as_it_is(world):
    world.write(TYPES)
    instants(world)
    copy_all(world.sessions, world.facts, Pace())
    world.assert_alike()


def test_every_type_of_value_arrives_as_it_is_by_the_log(world):
    copy_all(world.sessions, world.facts, Pace())
    world.write(TYPES)
    instants(world)
    assert drain(world.sessions, world.facts).left == 0
    world.assert_alike()
    assert len(rows(world.sessions.target, "rows_types")) == 4


@pytest.mark.parametrize(
    "above",
    [
        lambda n: n + 1 if n < 40 else None,
        lambda n: n - 1 if n > 1 else None,
        lambda n: 41 - n if n != 41 - n else None,
        lambda n: n,
        lambda n: n % 40 + 1,
    ],
    ids=["after", "before", "pairs", "itself", "circle"],
)
def test_a_tree_is_copied_whichever_way_its_rows_refer(world, above):
    tree(world, range(1, 41), above)
    assert copy_all(world.sessions, world.facts, small(7)) == 40
    world.assert_alike()


def test_tables_that_refer_to_each_other_are_copied(world):
    with world.application.connection.transaction():
        for number in range(30):
            world.write("INSERT INTO rows_hen VALUES (%s, 7, %s)", number, 29 - number)
            world.write("INSERT INTO rows_egg VALUES (%s, 7, %s)", number, (number + 5) % 30)
    pace = Pace(sizes={"rows_hen": 4, "rows_egg": 4})
    assert copy_all(world.sessions, world.facts, pace) == 60
    world.assert_alike()


def test_wide_rows_are_copied(world):
    world.write(
        "INSERT INTO rows_types (id, bucket, raw, doc) SELECT n, 7, decode(repeat('00ff', 1000000), 'hex'), "
        "to_json(repeat('é', 500000)) FROM generate_series(1, 4) n"
    )
    copy_all(world.sessions, world.facts, small(3))
    world.assert_alike()


def test_the_progress_tells_how_many_rows_there_are_and_their_digest(world):
    family(world, 1, 25)
    copy_all(world.sessions, world.facts, small())
    ((last, number, digest, done, generation),) = world.at_target(
        "SELECT last, rows, digest, done, generation FROM sharding_progress WHERE table_name = 'rows_parent'"
    )
    assert (last, number, done, generation) == (["00000000-0000-7000-8000-000000000025"], 25, True, 11)
    columns = "bucket, id, name, tenant"
    query = f"SELECT sum(hashtextextended(ROW({columns})::text, 0)) FROM rows_parent"
    assert world.at_target(query) == [(digest,)]


def test_chunks_adapt_to_the_time_that_they_take(world):
    family(world, 1, 400)
    pace = Pace(budget=30.0)
    pace.sizes["rows_parent"] = 100
    copy_chunk(world.sessions, world.facts, pace)
    assert pace.sizes["rows_parent"] == 200
    pace.budget = 1e-9
    copy_chunk(world.sessions, world.facts, pace)
    assert pace.sizes["rows_parent"] == 50


def test_a_copy_is_no_faster_than_it_is_told_to_be(world, monkeypatch):
    slept = []
    change_time(monkeypatch, "sharding.rebalance.copying", sleep=slept.append)
    family(world, 1, 50)
    pace = small(50)
    pace.rows_per_second = 10.0
    copied = copy_chunk(world.sessions, world.facts, pace)
    assert copied.rows == 50
    assert slept == [pytest.approx(5 - copied.seconds)]


def test_a_pause_is_asked_for_between_chunks(world):
    family(world, 1, 100)
    calls = []

    def pause():
        calls.append(len(rows(world.sessions.target, "rows_parent")))
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        copy_all(world.sessions, world.facts, Pace(pause=pause, sizes={"rows_parent": 10}))
    assert calls == [0, 10, 60]
    copy_all(world.sessions, world.facts, Pace())
    world.assert_alike()


def test_progress_is_read_for_each_table(world):
    family(world, 1, 3)
    copy_chunk(world.sessions, world.facts, Pace())
    with world.sessions.target.connection.cursor() as cursor:
        found = progress.read(cursor, world.facts)
    assert set(found) == {table.name for table in world.facts.tables}
    # Tables without rows need no chunk of their own.
    assert [name for name, each in found.items() if not each.done] == ["rows_child", "rows_grandchild"]
    assert all(each.last is None or json.loads(each.last) for each in found.values())

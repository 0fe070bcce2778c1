"""
Whatever is not the same on both shards is found, and named; what is about to be brought over is no difference.
"""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from sharding.errors import VerificationFailed
from sharding.rebalance import comparing, verifying
from sharding.rebalance.capturing import drain
from sharding.rebalance.copying import Pace, copy_all
from sharding.rebalance.verifying import large_tables, verify, verify_all, verify_numbers, verify_rest
from tests.layouts import CLUSTER
from tests.rebalance.rows import TYPES, family, instants, tree

pytestmark = pytest.mark.django_db(databases=CLUSTER)

DAMAGE = {
    "value": ("rows_child", "UPDATE rows_child SET text = 'x' WHERE number = 3", "changed", {"text"}),
    "null": ("rows_child", "UPDATE rows_child SET text = NULL WHERE number = 3", "changed", {"text"}),
    "dropped": ("rows_grandchild", "DELETE FROM rows_grandchild WHERE id = 5", "missing", set()),
    "extra": ("rows_tree", "INSERT INTO rows_tree VALUES (99, 7)", "extra", set()),
    "scale": ("rows_types", "UPDATE rows_types SET price = 1.0 WHERE id = 'all'", "changed", {"price"}),
    "zero": ("rows_types", "UPDATE rows_types SET ratio = 0 WHERE id = 'all'", "changed", {"ratio"}),
    "json": (
        "rows_types",
        'UPDATE rows_types SET doc = \'{"b": 1, "a": 2, "a": 3}\' WHERE id = \'all\'',
        "changed",
        {"doc"},
    ),
    "jsonb": ("rows_types", "UPDATE rows_types SET jdoc = '{\"b\": 1}' WHERE id = 'all'", "changed", {"jdoc"}),
    "array": (
        "rows_types",
        "UPDATE rows_types SET words = '{\"a,b\",\"\",NULL,NULL}' WHERE id = 'all'",
        "changed",
        {"words"},
    ),
    "bounds": ("rows_types", "UPDATE rows_types SET grid = '{{1,2},{3,4}}' WHERE id = 'all'", "changed", {"grid"}),
    "bytes": ("rows_types", "UPDATE rows_types SET raw = '\\x00ff5d' WHERE id = 'all'", "changed", {"raw"}),
    "blank": ("rows_types", "UPDATE rows_types SET note = ' ' WHERE id = ''", "changed", {"note"}),
    "empty": ("rows_types", "UPDATE rows_types SET note = '' WHERE id = 'none'", "changed", {"note"}),
    "row": ("rows_types", "UPDATE rows_types SET pairs = ROW(NULL, NULL) WHERE id = 'none'", "changed", {"pairs"}),
    "instant": ("rows_types", "UPDATE rows_types SET at = at + '1 microsecond' WHERE id = 'all'", "changed", {"at"}),
}


@pytest.fixture
def copied(world):
    family(world, 1, 40)
    tree(world, range(1, 10), lambda n: n + 1 if n < 9 else None)
    instants(world)
    world.write(TYPES)
    copy_all(world.sessions, world.facts, Pace())
    drain(world.sessions, world.facts)
    return world


def test_equal_rows_are_equal(copied):
    report = verify(copied.sessions, copied.facts)
    assert report.sound
    assert (report.rows, report.pending, report.different) == (135, 0, 0)
    assert all(table.alike for table in report.tables)
    assert json.loads(json.dumps(report.as_json()))["sound"] is True
    # As together with other buckets.
    together = verify_all(copied.sessions, [copied.facts])
    assert replace(together[copied.facts.bucket], seconds=0) == replace(report, seconds=0)


def all_of(sessions, facts):
    return verify_all(sessions, [facts])


@pytest.mark.parametrize(("size", "by"), [(3, verify), (20_000, verify), (20_000, all_of)])
@pytest.mark.parametrize(("table", "statement", "kind", "columns"), DAMAGE.values(), ids=DAMAGE)
def test_damage_is_found_and_named(copied, monkeypatch, size, by, table, statement, kind, columns):
    for module in (comparing, verifying):
        monkeypatch.setattr(module, "RANGE", size)
    with copied.sessions.target.connection.transaction():
        copied.at_target("SELECT set_config('sharding.mover', '11', true)")
        copied.at_target(statement)
    with pytest.raises(VerificationFailed) as caught:
        by(copied.sessions, copied.facts)
    report = caught.value.report
    (found,) = report.differences
    assert (found.table, found.kind, set(found.columns)) == (table, kind, columns)
    assert (report.different, report.sound) == (1, False)
    assert found.key in str(caught.value)
    json.dumps(report.as_json())


def test_rows_that_are_in_the_log_are_compared_later(copied):
    copied.write("UPDATE rows_child SET text = 'new' WHERE number = 3")
    copied.write("DELETE FROM rows_tree WHERE id = 1")
    copied.write("UPDATE rows_when SET n = 5 WHERE n = 1")
    assert verify(copied.sessions, copied.facts).pending == 3
    assert verify_all(copied.sessions, [copied.facts])[copied.facts.bucket].pending == 3
    drained = drain(copied.sessions, copied.facts)
    assert verify(copied.sessions, copied.facts, only=drained.keys).pending == 0


def test_a_few_rows_are_compared_beside_the_number_of_all(copied):
    copied.at_target("UPDATE rows_child SET text = 'x' WHERE number = 3")
    assert verify(copied.sessions, copied.facts, only={"rows_child": {"[1, 4]"}}).sound
    verify_rest(copied.sessions, [(copied.facts, {"rows_child": {"[1, 4]"}})])
    with pytest.raises(VerificationFailed):
        verify(copied.sessions, copied.facts, only={"rows_child": {"[0, 3]"}})
    with pytest.raises(VerificationFailed):
        verify_rest(copied.sessions, [(copied.facts, {"rows_child": {"[0, 3]"}})])


def test_numbers_of_rows_are_compared_even_if_no_row_is(copied):
    copied.at_target("INSERT INTO rows_tree VALUES (99, 7)")
    with pytest.raises(VerificationFailed) as caught:
        verify_rest(copied.sessions, [(copied.facts, {})])
    assert [each.key for each in caught.value.report.differences] == ["[99]"]


@pytest.fixture
def large(copied, monkeypatch):
    """Let all tables but one have too many rows to be counted under the fence; return their names."""
    for module in (comparing, verifying):
        monkeypatch.setattr(module, "RANGE", 3)
    names = large_tables(verify(copied.sessions, copied.facts))
    assert names == {"rows_parent", "rows_child", "rows_grandchild", "rows_tree", "rows_types"}
    return names


def test_rows_of_large_tables_are_counted_while_others_write(copied, large, monkeypatch):
    """And are not compared one by one for that."""
    monkeypatch.setattr(verifying, "verify", pytest.fail)
    copied.write("INSERT INTO rows_tree VALUES (99, 7)")
    copied.write("DELETE FROM rows_grandchild WHERE id = 5")
    copied.write("UPDATE rows_child SET text = 'y' WHERE number = 3")
    copied.write("UPDATE rows_types SET id = 'every' WHERE id = 'all'")
    verify_numbers(copied.sessions, copied.facts, large)


@pytest.mark.parametrize(
    ("statement", "key"),
    [("INSERT INTO rows_tree VALUES (99, 7)", "[99]"), ("DELETE FROM rows_grandchild WHERE id = 5", "[5]")],
)
def test_a_number_of_rows_that_the_log_does_not_explain_is_found(copied, large, statement, key):
    copied.write("INSERT INTO rows_tree VALUES (98, 7)")
    copied.write("DELETE FROM rows_grandchild WHERE id = 6")
    copied.at_target(statement)
    with pytest.raises(VerificationFailed) as caught:
        verify_numbers(copied.sessions, copied.facts, large)
    assert [each.key for each in caught.value.report.differences] == [key]


def test_what_was_counted_before_is_not_counted_again(copied, large):
    bucket = copied.facts.bucket
    copied.at_target("INSERT INTO rows_tree VALUES (99, 7)")
    verify_rest(copied.sessions, [(copied.facts, {})], {bucket: large})
    verify_rest(copied.sessions, [(copied.facts, {})], {bucket: {table.name for table in copied.facts.tables}})
    with pytest.raises(VerificationFailed):
        verify_rest(copied.sessions, [(copied.facts, {})], {bucket: large - {"rows_tree"}})


def test_time_zones_of_roles_are_no_difference(copied):
    info = copied.sessions.target.connection.info
    # Other runs have sessions of the same role.
    role = f'ROLE "{info.user}" IN DATABASE "{info.dbname}"'
    copied.at_target(f"ALTER {role} SET timezone TO 'Asia/Tokyo'")
    try:
        with type(copied).opened_again() as sessions:
            assert sessions.target.connection.execute("SHOW timezone").fetchone() == ("UTC",)
            assert verify(sessions, copied.facts).sound
    finally:
        copied.at_target(f"ALTER {role} RESET timezone")


def test_secrets_are_not_shown():
    from sharding.rebalance.report import shown

    assert shown("password", "abc") == "(3 letters)"
    assert shown("name", "x" * 30) == "x" * 24 + "… (30 letters)"
    assert shown("name", None) == "NULL"

"""
What a mover knows of tables, and which differences between two shards it tells.
"""

from __future__ import annotations

import pytest

from sharding import registry
from sharding.rebalance import preflight_tables, tables
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_tables_come_after_those_to_which_they_refer(world):
    found = tables.sharded_tables(world.sessions.source)
    order = [table.name for table in found]
    assert set(order) == set(registry.tables())
    assert order.index("shop_customer") < order.index("shop_order") < order.index("shop_line")
    assert max(order.index("shop_tag"), order.index("shop_order")) < order.index("shop_ordertag")


def test_columns_keys_and_circles_are_found(world):
    by_name = {table.name: table for table in world.facts.tables}
    assert [column.name for column in by_name["rows_parent"].copied] == ["bucket", "id", "name", "tenant"]
    assert [column.name for column in by_name["rows_child"].key] == ["tenant", "number"]
    assert {name for name, table in by_name.items() if table.cyclic} == {"rows_tree", "rows_hen", "rows_egg"}
    assert {name for name, table in by_name.items() if not table.binary} == {"rows_types"}


def test_migrated_shards_are_alike(world):
    assert tables.differences(world.sessions.source, world.sessions.target) == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ("ADD extra integer", "shop_line has a column extra on 'shard_b', and none on 'shard_a'."),
        ("DROP amount", "shop_line has a column amount on 'shard_a', and none on 'shard_b'."),
        ("ALTER amount TYPE bigint", "shop_line.amount has the type 'integer' on 'shard_a' and 'bigint' on 'shard_b'."),
        (
            "ALTER amount DROP NOT NULL",
            "shop_line.amount has the nullability False on 'shard_a' and True on 'shard_b'.",
        ),
        ("RENAME TO lost", "shop_line does not exist on 'shard_b'."),
    ],
    ids=["more", "less", "type", "null", "table"],
)
def test_differences_are_told(world, change, sentence):
    with world.sessions.target.connection.transaction(force_rollback=True):
        world.at_target(f"ALTER TABLE shop_line {change}")
        assert tables.differences(world.sessions.source, world.sessions.target) == [sentence]


def test_a_view_of_a_sharded_model_has_no_rows_to_move(world):
    sessions = (world.sessions.source, world.sessions.target)
    with (
        sessions[0].connection.transaction(force_rollback=True),
        sessions[1].connection.transaction(force_rollback=True),
    ):
        for session in sessions:
            session.connection.execute("ALTER TABLE shop_line RENAME TO kept")
            session.connection.execute("CREATE VIEW shop_line AS SELECT * FROM kept")
        assert tables.differences(*sessions) == []
        assert "shop_line" not in {table.name for table in tables.sharded_tables(sessions[0])}
        assert list(preflight_tables.of_rules(sessions[0], ["shop_line"])) == []

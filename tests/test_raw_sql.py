"""
Raw SQL on `default`: refused when it names a sharded table, in whatever dress; allowed on a shard, or when marked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models.expressions import RawSQL

from aggregator import on_each_shard
from sharding.errors import RawShardedSQL
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Note, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

POSTGRESQL = connections["default"].vendor == "postgresql"


def refused(table: str = "shop_order", label: str = "shop.Order") -> str:
    return (
        f"This SQL on 'default' names {table!r}, a table of the sharded model {label}, and would see the rows of the "
        f"control database only. Ask every shard with aggregator.raw() or on_each_shard(), some with their shards=[…], "
        f"or put /* control database only */ into the statement if that is what you mean."
    )


REFUSED = {
    "select": "SELECT * FROM shop_order",
    "quoted": 'SELECT "shop_order"."id" FROM "shop_order"',
    "schema": "SELECT * FROM public.shop_order",
    "quoted schema": 'SELECT * FROM "public"."shop_order"',
    "upper case": "SELECT * FROM SHOP_ORDER",
    "mixed case": "SELECT * FROM Shop_Order",
    "white space": "SELECT *\n\tFROM\n\tshop_order\n\tWHERE 1 = 1",
    "end of the statement": "TRUNCATE shop_order;",
    "join": "SELECT * FROM shop_region, shop_order",
    "subquery": "SELECT * FROM shop_note WHERE order_id IN (SELECT id FROM shop_order)",
    "cte": "WITH found AS (SELECT id FROM shop_order) SELECT * FROM found",
    "comment": "SELECT * FROM/**/shop_order/**/",
    "alias": "SELECT o.* FROM shop_order AS o",
    "insert": "INSERT INTO shop_order (id) VALUES (1)",
    "insert with columns at once": "INSERT INTO shop_order(id) VALUES (1)",
    "update": "UPDATE shop_order SET status = 'x'",
    "delete": "DELETE FROM shop_order",
    "leading comment": "-- nightly\nDELETE FROM shop_order",
    "transaction control first": "SAVEPOINT a; DELETE FROM shop_order",
}


@pytest.mark.parametrize("sql", REFUSED.values(), ids=REFUSED)
def test_statements_that_are_refused(sql: str) -> None:
    with assert_statements({}), pytest.raises(RawShardedSQL, match=whole(refused())) as caught:
        run(sql)
    assert caught.value.table == "shop_order"


def run(sql: Any, params: Any = None) -> Any:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else None


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT name FROM shop_region",
        "SELECT 1 AS shop_orders",
        "SELECT 1 AS my_shop_order",
        "SELECT 1 AS shop_order_archive",
        "SELECT 1 AS shop_order2",
        'SELECT 1 AS "x_SHOP_ORDER"',
    ],
)
def test_other_names_are_allowed(sql: str) -> None:
    run(sql)


def test_longest_name_is_told() -> None:
    with pytest.raises(RawShardedSQL, match=whole(refused("shop_ordertag", "shop.OrderTag"))):
        run("SELECT * FROM shop_ordertag")


WAYS: dict[str, Callable[[Any], object]] = {
    "execute": lambda cursor: cursor.execute("DELETE FROM shop_order WHERE status = %s", ["x"]),
    "executemany": lambda cursor: cursor.executemany("DELETE FROM shop_order WHERE status = %s", [["x"], ["y"]]),
    "raw": lambda cursor: list(Order.objects.raw("SELECT * FROM shop_order")),
    "raw of a global model": lambda cursor: list(Note.objects.raw("SELECT * FROM shop_order")),
    "extra of a global model": lambda cursor: list(
        Note.objects.extra(where=["order_id IN (SELECT id FROM shop_order)"])
    ),
    "extra tables of a global model": lambda cursor: list(Note.objects.extra(tables=["shop_order"])),
    "RawSQL of a global model": lambda cursor: list(
        Note.objects.annotate(n=RawSQL("SELECT count(*) FROM Shop_Order", []))
    ),
    "RawSQL in an update": lambda cursor: Note.objects.update(text=RawSQL("SELECT max(status) FROM shop_order", [])),
}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_every_way_is_watched(way: Callable[[Any], object]) -> None:
    with (
        assert_statements({}),
        pytest.raises(RawShardedSQL, match=whole(refused())),
        transaction.atomic(using="default"),
        connections["default"].cursor() as cursor,
    ):
        way(cursor)


def composed() -> dict[str, Any]:
    """What psycopg takes for SQL and is no str."""
    if not POSTGRESQL:
        return {}
    from psycopg import sql

    return {
        "SQL": sql.SQL("DELETE FROM shop_order"),
        "Composed": sql.SQL("DELETE FROM {}").format(sql.Identifier("shop_order")),
        "with a schema": sql.SQL("DELETE FROM {}").format(sql.Identifier("public", "shop_order")),
        "with values": sql.SQL("DELETE FROM {} WHERE status = {}").format(
            sql.Identifier("shop_order"), sql.Literal("x")
        ),
        "bytes": b"DELETE FROM shop_order",
    }


def test_composed_statements() -> None:
    for name, statement in composed().items():
        with pytest.raises(RawShardedSQL, match=whole(refused())):
            run(statement)
        with pytest.raises(RawShardedSQL, match=whole(refused())), connections["default"].cursor() as cursor:
            cursor.executemany(statement, [[], []])
        assert connections["default"].sharded_depth == 0, name


def test_composed_statements_over_other_tables() -> None:
    if POSTGRESQL:
        from psycopg import sql

        assert run(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier("shop_region"))) == [(0,)]
        assert run(b"SELECT 1") == [(1,)]


def test_pragma_is_for_sqlite_alone() -> None:
    sql = "PRAGMA table_info(shop_order)"
    if POSTGRESQL:
        with pytest.raises(RawShardedSQL, match=whole(refused())):
            run(sql)
        with pytest.raises(RawShardedSQL, match=whole(refused())):
            run("PRAGMA user_version; DELETE FROM shop_order")
    else:
        assert len(run(sql)) == len(Order._meta.local_concrete_fields)


def test_mark() -> None:
    """The control database has the tables, too, for the buckets that it owns."""
    assert run("SELECT count(*) FROM shop_order /* control database only */") == [(0,)]
    assert run("/* control database only */ DELETE FROM shop_order") is None
    assert not list(Order.objects.raw("SELECT * FROM shop_order /* control database only */"))
    with pytest.raises(RawShardedSQL, match=whole(refused())):
        run("SELECT count(*) FROM shop_order /* Control Database Only */")


def test_one_shard_by_name() -> None:
    order = Order.objects.create(tenant_id=tenant_on("shard_a"))
    with assert_statements({"shard_a": 2, "shard_b": 1}):
        assert list(Order.objects.using("shard_a").raw("SELECT * FROM shop_order")) == [order]
        assert not list(Order.objects.using("shard_b").raw("SELECT * FROM shop_order"))
        with connections["shard_a"].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM shop_order")
            assert cursor.fetchone() == (1,)


def test_each_shard() -> None:
    Order.objects.create(tenant_id=tenant_on("shard_a"))

    def counted(connection: Any) -> int:
        with connection.cursor() as cursor:
            cursor.execute("SELECT count(*) FROM shop_order")
            return int(cursor.fetchone()[0])

    assert on_each_shard(counted) == {"shard_a": 1, "shard_b": 0, "shard_c": 0}


def test_statements_of_sharded_queries_may_hold_raw_sql() -> None:
    tenant = tenant_on("shard_a")
    Order.objects.create(tenant_id=tenant, quantity=3)
    rows = Order.objects.filter(tenant_id=tenant).annotate(n=RawSQL("shop_order.quantity + 1", []))
    with assert_statements({"shard_a": 1}):
        assert rows.get().n == 4


def test_introspection_is_allowed() -> None:
    Region.objects.create(name="north")
    connection = connections["default"]
    with connection.cursor() as cursor:
        assert "shop_order" in connection.introspection.table_names(cursor)
        assert connection.introspection.get_table_description(cursor, "shop_order")
        assert connection.introspection.get_constraints(cursor, "shop_order")

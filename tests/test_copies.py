"""
copy() and stream() of PostgreSQL's cursors: refused and counted as other statements are, and otherwise psycopg's own.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import CaptureQueriesContext
from psycopg import sql

from sharding.errors import RawShardedSQL
from sharding.testing.statements import assert_statements
from tests.blocks import undone
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

REFUSED = (
    "This SQL on 'default' names 'shop_order', a table of the sharded model shop.Order, and would see the rows of the "
    "control database only. Ask every shard with aggregator.raw() or on_each_shard(), some with their shards=[…], or "
    "put /* control database only */ into the statement if that is what you mean."
)

WAYS: dict[str, Callable[[Any], object]] = {
    "copy out": lambda cursor: list(cursor.copy("COPY shop_order TO STDOUT").__enter__()),
    "copy in": lambda cursor: cursor.copy("COPY shop_order (id) FROM STDIN").__enter__(),
    "copy a query": lambda cursor: cursor.copy("COPY (SELECT * FROM shop_order) TO STDOUT").__enter__(),
    "copy, composed": lambda cursor: cursor.copy(
        sql.SQL("COPY {} TO STDOUT").format(sql.Identifier("shop_order"))
    ).__enter__(),
    "stream": lambda cursor: next(cursor.stream("SELECT * FROM shop_order")),
    "stream with parameters": lambda cursor: next(cursor.stream("SELECT %s FROM shop_order", [1])),
}


@pytest.fixture(params=[False, True], ids=["plain", "debug"])
def cursor(request: pytest.FixtureRequest, db: None):
    connections["default"].force_debug_cursor = request.param
    with connections["default"].cursor() as cursor:
        yield cursor
    connections["default"].force_debug_cursor = False


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_sharded_tables_are_refused(way: Callable[[Any], object], cursor: Any) -> None:
    with assert_statements({}), pytest.raises(RawShardedSQL, match=whole(REFUSED)) as caught:
        way(cursor)
    assert caught.value.table == "shop_order"


def test_tables_of_the_control_database(cursor: Any) -> None:
    with assert_statements({"default": 3}):
        with cursor.copy("COPY shop_region (name) FROM STDIN") as copy:
            copy.write_row(["north"])
            copy.write_row(["south"])
        with cursor.copy("COPY (SELECT name FROM shop_region WHERE name > %s) TO STDOUT", ["o"]) as copy:
            assert list(copy.rows()) == [("south",)]
        with closing(cursor.stream("SELECT name FROM shop_region WHERE name < %s", ["o"])) as rows:
            assert list(rows) == [("north",)]


def test_a_mark(cursor: Any) -> None:
    with cursor.copy("COPY shop_order /* control database only */ TO STDOUT") as copy:
        assert list(copy.rows()) == []


def test_a_shard_by_name() -> None:
    order = Order.objects.create(tenant_id=tenant_on("shard_a"))
    with assert_statements({"shard_a": 2}), connections["shard_a"].cursor() as cursor:
        with cursor.copy("COPY (SELECT id::text FROM shop_order) TO STDOUT") as copy:
            assert list(copy.rows()) == [(str(order.pk),)]
        assert list(cursor.stream("SELECT id FROM shop_order")) == [(order.pk,)]


def test_a_copy_is_logged() -> None:
    with (
        CaptureQueriesContext(connections["default"]) as queries,
        connections["default"].cursor() as cursor,
        cursor.copy("COPY shop_region TO STDOUT") as copy,
    ):
        list(copy)
    sent = [query["sql"] for query in queries.captured_queries if query["sql"] != "BEGIN"]
    assert sent == ["COPY shop_region TO STDOUT"]


def test_a_block_that_failed() -> None:
    with undone(), connections["default"].cursor() as cursor:
        transaction.set_rollback(True, using="default")
        with pytest.raises(TransactionManagementError):
            cursor.copy("COPY shop_region TO STDOUT")


def test_a_copy_is_undone_with_its_block() -> None:
    with undone(), connections["default"].cursor() as cursor:
        with cursor.copy("COPY shop_region (name) FROM STDIN") as copy:
            copy.write_row(["north"])
        assert Region.objects.get().name == "north"
    assert not Region.objects.exists()

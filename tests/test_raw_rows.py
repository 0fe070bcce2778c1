"""Raw SQL on every shard: rows with their shard, names of columns, parameters, and what is refused without a trace."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.test.utils import CaptureQueriesContext

from aggregator import RawRow, fan_out, raw
from sharding.errors import UnknownShard
from sharding.testing import cluster
from tests.documents import ROOT, blocks
from tests.layouts import tenant_on
from tests.messages import whole
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True)
TOTALS = "SELECT status, sum(quantity) AS total FROM shop_order GROUP BY status ORDER BY status"


@pytest.fixture(scope="module", autouse=True)
def owners(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners("default", "shard_a", "shard_b"):
        yield


@pytest.fixture(autouse=True)
def _orders(owners: None, db: None) -> None:
    for number, alias in enumerate(["default", "shard_a", "shard_b"], start=1):
        tenant = tenant_on(alias)
        Order.objects.create(tenant_id=tenant, status="new", quantity=number)
        Order.objects.create(tenant_id=tenant, status="paid", quantity=number * 10)


def plain(rows: list[RawRow]) -> list[tuple[Any, ...]]:
    return [(row.shard, *row.columns.values()) for row in rows]


def test_rows_with_their_shard() -> None:
    rows = raw(TOTALS)
    assert plain(rows) == [
        *(("default", "new", 1), ("default", "paid", 10)),
        *(("shard_a", "new", 2), ("shard_a", "paid", 20)),
        *(("shard_b", "new", 3), ("shard_b", "paid", 30)),
    ]
    row = rows[3]
    assert (row.shard, row.status, row.total, row["total"]) == ("shard_a", "paid", 20, 20)
    assert row == RawRow("shard_a", {"status": "paid", "total": 20})
    assert copy.deepcopy(row) == pickle.loads(pickle.dumps(row)) == row


@pytest.mark.parametrize(
    ("where", "params", "found"),
    [
        (" WHERE quantity > %s", [2], 4),
        (" WHERE quantity > %s", (2,), 4),
        (" WHERE quantity > %(least)s AND quantity < %(most)s", {"least": 1, "most": 20}, 3),
        (" WHERE status LIKE 'p%'", None, 3),
        (" WHERE status LIKE 'p%%' AND quantity > %s", [10], 2),
        (" WHERE quantity > 100", None, 0),
    ],
    ids=["list", "tuple", "dict", "none", "percent", "no row"],
)
def test_parameters(where: str, params: Any, found: int) -> None:
    assert len(raw(f"SELECT quantity FROM shop_order{where}", params)) == found


def test_some_shards() -> None:
    assert [row.shard for row in raw("SELECT 1 AS one", shards=["shard_b", "default"])] == ["shard_b", "default"]
    assert raw("SELECT 1 AS one", shards=[]) == []
    # Any shard of the cluster may be asked, without a bucket as well.
    assert plain(raw("SELECT count(*) FROM shop_order", shards=["shard_c"])) == [("shard_c", 0)]
    with pytest.raises(UnknownShard):
        raw("SELECT 1", shards=["reference"])


def test_columns_that_are_called_like_attributes() -> None:
    [row] = raw('SELECT 7 AS shard, 8 AS columns, 9 AS "two words"', shards=["shard_a"])
    assert (row.shard, row["shard"], row["columns"], row["two words"]) == ("shard_a", 7, 8, 9)
    assert row.columns == {"shard": 7, "columns": 8, "two words": 9}


def test_a_column_that_is_not_there() -> None:
    [row] = raw("SELECT 1 AS one, 2 AS two", shards=["shard_a"])
    with pytest.raises(AttributeError, match=whole("This row has no column 'three'. Its columns are one, two.")):
        _ = row.three
    with pytest.raises(KeyError, match="three"):
        row["three"]


def test_two_columns_of_one_name() -> None:
    message = "Several columns of this statement are called 'id', 'status'. Give each its own name with AS."
    with pytest.raises(ValueError, match=whole(message)):
        raw("SELECT a.id, a.status, b.id, b.status, a.total FROM shop_order a JOIN shop_order b ON a.id = b.id")


WRITES = {
    "no rows": "UPDATE shop_order SET quantity = 99",
    "two columns of one name": "UPDATE shop_order SET quantity = 99 RETURNING id, id",
}
MESSAGES = {
    "no rows": "This statement gives no rows, and raw() is for reading. Nothing was changed. Write by querysets, or "
    "run it by aggregator.on_each_shard().",
    "two columns of one name": "Several columns of this statement are called 'id'. Give each its own name with AS.",
}


@pytest.mark.parametrize("name", WRITES)
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "atomic"])
def test_what_is_refused_changes_nothing(name: str, atomic: bool) -> None:
    before = [1, 2, 3, 10, 20, 30]
    block: Any = transaction.atomic(using="default") if atomic else nullcontext()
    with block:
        if atomic:
            Order.objects.create(tenant_id=tenant_on("shard_a"), quantity=5)
            before = [*before, 5]
        with pytest.raises(ValueError, match=whole(MESSAGES[name])):
            raw(WRITES[name])
        assert sorted(fan_out(Order.objects).values_list("quantity", flat=True)) == sorted(before)
        if atomic:
            transaction.set_rollback(True, using="default")


def test_in_the_block_of_the_caller() -> None:
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=tenant_on("shard_b"), status="fresh")
        assert plain(raw("SELECT status FROM shop_order WHERE status = 'fresh'")) == [("shard_b", "fresh")]
        transaction.set_rollback(True, using="default")
    assert raw("SELECT status FROM shop_order WHERE status = 'fresh'") == []


def test_execute_wrappers_and_query_logs_see_it() -> None:
    seen: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append(sql)
        return execute(sql, params, many, context)

    with connections["shard_a"].execute_wrapper(wrapper), CaptureQueriesContext(connections["shard_b"]) as sent:
        raw(TOTALS)
    assert TOTALS in seen
    assert TOTALS in [query["sql"] for query in sent]


def test_an_error_names_the_shard() -> None:
    with pytest.raises(DatabaseError, match="nope") as caught:
        raw("SELECT nope FROM shop_order")
    assert caught.value.__notes__ == ["on shard 'default'"]
    assert len(raw(TOTALS)) == 6


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    [block] = [each for each in blocks(ROOT / "docs" / "topics" / "fan-out.md", "python") if " raw(" in each.text]
    Order.objects.create(tenant_id=tenant_on("shard_b"), status="sent", total=10)
    exec(block.text, {})
    assert capsys.readouterr().out.splitlines() == ["shard_b sent 1"]

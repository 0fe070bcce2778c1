"""
What docs/topics/locks-and-isolation.md shows: between two commits there is no snapshot, and what helps against it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from django.db import transaction
from django.db.models import Sum

from aggregator import fan_out
from sharding import lock_in_order
from tests.deadlocks.conftest import Block, between_two_commits, blocks, isolate
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order
from tests.transactions.conftest import Rows

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture
def accounts(rows: Rows) -> tuple[Order, Order]:
    """100 on shard_a, nothing on shard_b, and version 1 of both."""
    Order.objects.filter(pk=rows.order.pk).update(total=100, quantity=1)
    return Order.objects.get(pk=rows.order.pk), Order.objects.create(tenant_id=rows.b, total=0, quantity=1)


def transfer(source: Order, target: Order) -> Callable[[], object]:
    def work() -> None:
        for order, total in ((source, 70), (target, 30)):
            Order.objects.filter(tenant_id=order.tenant_id, pk=order.pk).update(total=total, quantity=2)

    return work


def total() -> int:
    return fan_out(Order.objects).aggregate(sum=Sum("total"))["sum"]


def test_a_reader_in_between_sees_one_part_without_the_other(accounts):
    assert total() == 100
    with between_two_commits(transfer(*accounts)) as block:
        assert total() == 70
        block.go_on()
        assert total() == 100


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_isolation_levels_do_not_help(accounts, level):
    with between_two_commits(transfer(*accounts)) as block, transaction.atomic(using="default"):
        for alias in CLUSTER[1:]:
            isolate(alias, level)
        assert total() == 70
        block.go_on()
        # A snapshot only makes it last.
        assert total() == 70
    assert total() == 100


def test_a_writer_in_between_changes_one_row_and_not_the_other(rows: Rows):
    def insert() -> None:
        for tenant in (rows.a, rows.b):
            Order.objects.create(tenant_id=tenant, status="twin")

    with between_two_commits(insert):
        assert fan_out(Order.objects.filter(status="twin")).update(status="seen") == 1
    left = Order.objects.filter(tenant_id__in=[rows.a, rows.b], status="twin")
    assert [order.tenant_id for order in left] == [rows.b]


def test_rows_of_one_key_are_seen_all_or_none(accounts, rows: Rows):
    source, target = accounts

    def insert() -> None:
        for order in (source, source, target):
            Order.objects.create(tenant_id=order.tenant_id, status="one")

    def seen(tenant: int) -> int:
        return Order.objects.filter(tenant_id=tenant, status="one").count()

    with between_two_commits(insert) as block:
        assert (seen(rows.a), seen(rows.b)) == (2, 0)
        block.go_on()
        assert (seen(rows.a), seen(rows.b)) == (2, 1)


def test_a_locking_read_of_all_rows_waits_and_sees_the_whole(accounts):
    sums: list[int] = []

    def add_up() -> None:
        sums.append(sum(row.total for row in lock_in_order(*accounts)))

    with between_two_commits(transfer(*accounts)) as block, blocks(Block(add_up)) as (reader,):
        reader.go(wait=False)
        time.sleep(0.3)
        assert sums == []
        block.go_on()
        assert reader.end() is None
    assert sums == [100]


def test_a_block_that_holds_all_rows_keeps_transfers_out(accounts):
    writer = Block(transfer(*accounts))
    with blocks(writer), transaction.atomic(using="default"):
        rows = lock_in_order(*accounts)
        writer.go(wait=False)
        time.sleep(0.3)
        assert sum(row.total for row in rows) == total() == 100
        assert [row.total for row in lock_in_order(*accounts)] == [100, 0]
    assert (writer.error, total()) == (None, 100)


def test_versions_tell_that_a_reader_came_in_between(accounts):
    def read() -> list[tuple[int, int]]:
        return [(row.quantity, row.total) for row in (Order.objects.get(pk=each.pk) for each in accounts)]

    assert read() == [(1, 100), (1, 0)]
    with between_two_commits(transfer(*accounts)) as block:
        assert read() == [(2, 70), (1, 0)]
        block.go_on()
        assert read() == [(2, 70), (2, 30)]

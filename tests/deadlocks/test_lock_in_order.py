"""lock_in_order: rows of several databases, locked in one order and returned fresh."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from django.db import OperationalError, connections, models, transaction
from django.db.transaction import TransactionManagementError
from django.test.utils import isolate_apps

from aggregator import fan_out
from sharding import bucket_of, lock_in_order
from sharding.errors import ShardKeyMissing
from sharding.testing.statements import statements
from tests.deadlocks.conftest import Block, blocks
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.shop.models import Device, Ledger, Order, PaidOrder, Region
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture
def orders(transactional_db) -> list[Order]:
    """Two orders on each shard, of different tenants."""
    return [
        Order.objects.create(tenant_id=tenant_on(alias, place), status="new")
        for place in range(2)
        for alias in ("shard_c", "shard_a", "shard_b")
    ]


def is_free(order: Order) -> bool:
    def lock() -> bool:
        with transaction.atomic(using="default"):
            try:
                list(Order.objects.select_for_update(nowait=True).filter(tenant_id=order.tenant_id, pk=order.pk))
            except OperationalError:
                transaction.set_rollback(True, using="default")
                return False
            return True

    return elsewhere(lock)


def test_rows_come_back_fresh_and_locked_in_the_order_given(orders):
    elsewhere(lambda: [Order.objects.filter(tenant_id=each.tenant_id).update(status="paid") for each in orders])
    with transaction.atomic(using="default"):
        found = lock_in_order(*orders)
        assert found == orders
        assert {each.status for each in found} == {"paid"}
        assert {each._state.db for each in found} == {"default"}
        assert not any(map(is_free, orders))
        found[0].status = "sent"
        found[0].save()
    assert all(map(is_free, orders))
    assert Order.objects.get(pk=orders[0].pk).status == "sent"


def test_the_order_of_locks_is_that_of_models_buckets_and_ids(orders):
    region = Region.objects.create(name="north")
    twins = [Order.objects.create(tenant_id=orders[0].tenant_id) for _ in range(3)]
    given = [*orders, region, *twins]
    random.shuffle(given)

    def locks() -> list[tuple[str, str]]:
        with statements() as sent, transaction.atomic(using="default"):
            lock_in_order(*given)
        return [(alias, sql) for alias, sql in sent.sent if "FOR UPDATE" in sql]

    found = locks()
    random.shuffle(given)
    assert [alias for alias, _ in found] == [alias for alias, _ in locks()]
    buckets = sorted({bucket_of(each) for each in orders})
    owners = {bucket_of(each): alias for each, alias in zip(orders, ["shard_c", "shard_a", "shard_b"] * 2, strict=True)}
    assert [alias for alias, _ in found] == [*(owners[bucket] for bucket in buckets), "default"]
    assert all('ORDER BY "shop_order"."id" ASC FOR UPDATE' in sql for _, sql in found[:-1])


def test_many_blocks_that_lock_the_same_rows_never_meet_in_a_circle(orders):
    """Each asks for the rows in an order of its own, and nobody gives up."""

    def work(number: int) -> None:
        try:
            for _ in range(5):
                mine = random.sample(orders, 4)
                with transaction.atomic(using="default"):
                    for row in lock_in_order(*mine):
                        row.quantity = (row.quantity or 0) + 1
                        row.save()
        finally:
            connections.close_all()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert sum(Order.objects.get(pk=each.pk).quantity or 0 for each in orders) == 4 * 5 * 4


def test_it_waits_for_a_row_and_sees_what_was_done_to_it(orders):
    def pay() -> None:
        Order.objects.filter(tenant_id=orders[1].tenant_id, pk=orders[1].pk).update(status="paid")

    def lock() -> None:
        seen.extend(each.status for each in lock_in_order(*orders))

    seen: list[str] = []
    with blocks(Block(pay), Block(lock)) as (holder, waiting):
        holder.go()
        waiting.go(wait=False)
        time.sleep(0.3)
        assert seen == []
        assert holder.end() is None
        assert waiting.end() is None
    assert sorted(seen) == ["new"] * 5 + ["paid"]


def test_rows_of_a_queryset(orders):
    tenants = [each.tenant_id for each in orders]
    new = Order.objects.filter(tenant_id__in=tenants, status="new").order_by("-tenant_id")
    assert len(new) == 6
    elsewhere(lambda: Order.objects.filter(tenant_id=orders[0].tenant_id).update(status="paid"))
    elsewhere(lambda: Order.objects.filter(tenant_id=orders[1].tenant_id).delete())
    elsewhere(lambda: Order.objects.filter(tenant_id=orders[2].tenant_id).update(quantity=7))
    with transaction.atomic(using="default"):
        found = lock_in_order(new)
        assert not any(map(is_free, found))
    # What does not match any more is left out; what was changed otherwise is fresh.
    assert [each.tenant_id for each in found] == sorted((each.tenant_id for each in orders[2:]), reverse=True)
    assert {each.tenant_id: each.quantity for each in found}[orders[2].tenant_id] == 7


def test_querysets_of_every_kind(orders, rows: Rows):
    tenants = [each.tenant_id for each in orders]
    first = Order.objects.filter(tenant_id__in=tenants).order_by("pk")
    with transaction.atomic(using="default"):
        assert lock_in_order(first[1:3]) == list(first[1:3])
        assert lock_in_order(fan_out(Order.objects.filter(status="new")).order_by("pk")[:2]) == list(
            fan_out(Order.objects.filter(status="new")).order_by("pk")[:2]
        )
        assert lock_in_order(first.none()) == []
        assert lock_in_order() == []
        [found] = lock_in_order(Order.objects.filter(pk=rows.order.pk).select_related("customer"))
        assert Order.customer.is_cached(found)
        assert lock_in_order(orders[0], first[:1], orders[:1]) == [orders[0], first[0], orders[0]]


def test_models_of_every_kind(rows: Rows):
    ledgers = [Ledger.objects.create(tenant_id=tenant, number=1) for tenant in (rows.b, rows.a)]
    devices = [Device.objects.create(serial=f"device {number}") for number in range(3)]
    region = Region.objects.create(name="north")
    paid = PaidOrder.objects.get(pk=rows.order.pk)
    given = [region, *devices, paid, *ledgers, rows.order, region]
    with transaction.atomic(using="default"):
        found = lock_in_order(*given)
    assert found == given
    assert [type(each) for each in found] == [type(each) for each in given]
    assert found[0] is found[-1]


def first_lock_slowly(start: threading.Barrier) -> Callable[..., Any]:
    """Let the first lock of each of two blocks be taken before the second one of either, as far as they let it."""

    def slow(execute, sql, params, many, context):
        found = execute(sql, params, many, context)
        if "FOR UPDATE" in sql:
            with suppress(threading.BrokenBarrierError):
                start.wait(1)
        return found

    return slow


def lock_at_once(*calls: Callable[[], Any]) -> None:
    """Call lock_in_order() twice at once, each in a block of its own."""
    slow = first_lock_slowly(threading.Barrier(2))

    def block(call: Callable[[], Any]) -> None:
        with connections["default"].execute_wrapper(slow), transaction.atomic(using="default"):
            lock_in_order(*call())

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(elsewhere, partial(block, call)) for call in calls]:
            each.result()


def test_querysets_that_lock_by_themselves(transactional_db):
    one, two = (Region.objects.create(name=name) for name in "12")

    def regions(*order: Region) -> list[Any]:
        return [Region.objects.select_for_update().filter(pk=each.pk) for each in order]

    lock_at_once(lambda: regions(one, two), lambda: regions(two, one))


@isolate_apps("tests.shop")
def test_parents_and_children(transactional_db):
    """A child's lock takes its parent's row along."""

    class Ware(models.Model):
        name = models.CharField(max_length=9)

        class Meta:
            app_label = "shop"

    class Book(Ware):
        class Meta:
            app_label = "shop"

    with connections["default"].schema_editor() as editor:
        editor.create_model(Ware)
        editor.create_model(Book)
    try:
        one, two = (Book.objects.create(name=name) for name in "12")
        parents = {each.pk: Ware.objects.get(pk=each.pk) for each in (one, two)}
        lock_at_once(lambda: [one, parents[two.pk]], lambda: [two, parents[one.pk]])
    finally:
        with connections["default"].schema_editor() as editor:
            editor.delete_model(Book)
            editor.delete_model(Ware)


def test_a_row_that_was_deleted(orders):
    Order.objects.filter(tenant_id=orders[0].tenant_id).delete()
    message = f"shop.Order {orders[0].pk!r} was deleted before it was locked."
    with transaction.atomic(using="default"), pytest.raises(Order.DoesNotExist, match=whole(message)):
        lock_in_order(orders[1], orders[0])


def test_it_needs_a_block(orders):
    message = (
        "lock_in_order() was called outside of an atomic block, where a lock ends with its statement. "
        "Open transaction.atomic() around it and around what the locks are for."
    )
    with pytest.raises(TransactionManagementError, match=whole(message)):
        lock_in_order(*orders)


@pytest.mark.parametrize("what", ["text", 3, {"id": 1}])
def test_what_it_takes(transactional_db, what):
    with transaction.atomic(using="default"):
        shown = "t" if what == "text" else "id" if what == {"id": 1} else 3
        message = f"lock_in_order() takes instances of models and querysets of them, not {shown!r}."
        with pytest.raises(TypeError, match=whole(message)):
            lock_in_order(what)


def test_rows_that_are_not_stored(transactional_db):
    with transaction.atomic(using="default"):
        for row in (Order(tenant_id=1), Region()):
            message = f"This {row._meta.label} is not stored, so it cannot be locked. Save it first."
            with pytest.raises(ValueError, match=whole(message)):
                lock_in_order(row)


def test_a_row_without_key_is_refused(orders):
    orders[0].tenant_id = None
    with transaction.atomic(using="default"), pytest.raises(ShardKeyMissing):
        lock_in_order(orders[0])

"""sharding.retry: what is repeated, and how often."""

from __future__ import annotations

import asyncio
import random
import re
from threading import Barrier

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction
from django.test import TestCase, override_settings

import sharding
from sharding import retrying
from sharding.commits import decisions
from sharding.conflicts import NOTE
from sharding.errors import BlockAborted
from tests.deadlocks.conflicts import closing, held
from tests.deadlocks.conftest import BOUND, Block, blocks, isolate
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.settings import SHARDING
from tests.shop.models import Order
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)


def test_a_block_is_repeated_until_it_succeeds(rows: Rows):
    @sharding.retry
    def function(text: str, *, end: str) -> str:
        """Say how often it was called."""
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b, status=text)
            return f"{text}{row.lock()}{end}"

    with held(rows, calls=3) as row:
        assert function("call ", end=".") == "call 3."
    assert Order.objects.filter(tenant_id=rows.b).count() == 1
    assert (function.__name__, function.__doc__) == ("function", "Say how often it was called.")


@pytest.mark.parametrize("times", [1, 2, 5])
def test_the_last_error_is_raised_and_says_how_often(rows: Rows, times):
    @sharding.retry(times=times)
    def function() -> None:
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row, pytest.raises(OperationalError) as raised:
        function()
    assert row.calls == times
    name = "test_the_last_error_is_raised_and_says_how_often.<locals>.function"
    calls = [f"sharding.retry has called {name}() {times} times."] if times > 1 else []
    assert raised.value.__notes__ == [NOTE, *calls]


def test_methods(rows: Rows):
    class Service:
        @sharding.retry(times=3)
        def run(self) -> int:
            with transaction.atomic(using="default"):
                return row.lock()

    with held(rows, calls=2) as row:
        assert Service().run() == 2


def test_other_errors_are_raised_at_once(rows: Rows):
    calls: list[int] = []

    @sharding.retry
    def function() -> None:
        calls.append(1)
        raise ValueError("sold out")

    with pytest.raises(ValueError, match=whole("sold out")) as raised:
        function()
    assert (len(calls), hasattr(raised.value, "__notes__")) == (1, False)


def test_two_blocks_in_opposite_order_on_two_servers_both_succeed(rows: Rows):
    other = Order.objects.create(tenant_id=rows.b)
    calls: list[int] = []
    met = Barrier(2, timeout=BOUND)

    def block(first: Order, second: Order, total: int):
        @sharding.retry(times=20)
        def function() -> None:
            calls.append(total)
            with transaction.atomic(using="default"):
                for order in (first, second):
                    Order.objects.filter(tenant_id=order.tenant_id, pk=order.pk).update(total=total)
                    if order is first and calls.count(total) == 1:
                        met.wait()

        return function

    with override_settings(SHARDING={**SHARDING, "LOCK_TIMEOUT": 0.3}):
        one = Block(block(rows.order, other, 1), atomic=False)
        two = Block(block(other, rows.order, 2), atomic=False)
        with blocks(one, two):
            one.go(wait=False)
            two.go(wait=False)
            assert [one.end(), two.end()] == [None, None]
    assert len(calls) > 2
    totals = {order.total for order in Order.objects.filter(tenant_id__in=[rows.a, rows.b])}
    assert len(totals) == 1


def test_a_block_that_a_resolver_has_aborted_is_repeated(rows: Rows):
    aborted: list[str] = []

    def abort_once(execute, sql, params, many, context):
        found = re.match(r"PREPARE TRANSACTION 'shardkit:[0-9a-f]+:([0-9a-f.]+):", str(sql))
        if found and not aborted:
            aborted.append(found[1])
            elsewhere(lambda: decisions.refuse(connections["default"].cursor(), found[1]))
        return execute(sql, params, many, context)

    @sharding.retry
    def function() -> None:
        with transaction.atomic(using="default"):
            Order.objects.filter(tenant_id=rows.a).update(status="kept")
            Order.objects.create(tenant_id=rows.b)

    with connections["shard_a"].execute_wrapper(abort_once):
        function()
    assert len(aborted) == 1
    assert Order.objects.filter(tenant_id=rows.b).count() == 1

    aborted.clear()
    with connections["shard_a"].execute_wrapper(abort_once), pytest.raises(BlockAborted) as raised:
        function.__wrapped__()
    assert raised.value.__notes__ == [NOTE]


def test_a_conflict_while_several_databases_prepare_is_repeated(rows: Rows):
    """Write skew on shard_a is found at PREPARE; a database that is only read has committed before."""
    calls: list[int] = []

    def block(status: str) -> None:
        with transaction.atomic(using="default"):
            Order.objects.filter(tenant_id=tenant_on("shard_c")).count()
            isolate("shard_a", "SERIALIZABLE")
            number = Order.objects.filter(tenant_id=rows.a).count()
            if status == "outer" and len(calls) == 1:
                elsewhere(lambda: block("inner"))
            Order.objects.create(tenant_id=rows.a, status=status, quantity=number)
            Order.objects.create(tenant_id=rows.b, status=status)

    @sharding.retry
    def function() -> None:
        calls.append(1)
        block("outer")

    function()
    assert len(calls) == 2
    assert sorted(Order.objects.filter(tenant_id=rows.b).values_list("status", flat=True)) == ["inner", "outer"]


def test_async_functions(rows: Rows):
    @sync_to_async
    def block() -> int:
        with transaction.atomic(using="default"):
            return row.lock()

    @sharding.retry(times=4)
    async def function() -> int:
        return await block()

    with held(rows, calls=3) as row:
        assert asyncio.run(closing(function)) == 3
    with held(rows) as row, pytest.raises(OperationalError) as raised:
        asyncio.run(closing(function))
    assert row.calls == 4
    assert raised.value.__notes__[1:] == ["sharding.retry has called test_async_functions.<locals>.function() 4 times."]


def test_pauses_grow_and_differ(monkeypatch):
    monkeypatch.undo()
    random.seed(1)
    pauses = [retrying._pause(number) for number in range(1, 40)]
    assert all(0.025 <= pause <= 2 for pause in pauses)
    assert pauses[0] <= 0.05 < pauses[2]
    assert min(pauses[6:]) >= 1
    assert len(set(pauses)) == len(pauses)


class InTestCase(TestCase):
    databases = CLUSTER

    def test_the_block_of_a_test_is_none(self):
        calls: list[int] = []
        order = Order.objects.create(tenant_id=tenant_on("shard_a"))

        @sharding.retry
        def function() -> None:
            calls.append(1)
            with transaction.atomic(using="default"):
                Order.objects.filter(tenant_id=order.tenant_id).update(total=len(calls))
                if len(calls) < 3:
                    raise BlockAborted("Repeat it.", transaction="1")

        function()
        order.refresh_from_db()
        assert (len(calls), order.total) == (3, 3)

"""What sees the statements of a fan-out, where they run, and what is left when they have."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import connections, reset_queries, transaction
from django.test.utils import CaptureQueriesContext

from aggregator import fan_out, threads
from tests import servers
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

threaded = pytest.mark.skipif(servers.engine == "sqlite", reason="Its connections are used in the caller's thread.")

tenant: ContextVar[str] = ContextVar("tenant", default="nobody")


@pytest.mark.parametrize("timeout", [None, 60], ids=["no deadline", "deadline"])
def test_every_statement_is_in_the_log_of_queries(timeout: float | None) -> None:
    with ExitStack() as stack:
        captured = {alias: stack.enter_context(CaptureQueriesContext(connections[alias])) for alias in CLUSTER}
        list(fan_out(Order.objects, timeout=timeout))
    assert {alias: len(queries) for alias, queries in captured.items()} == dict.fromkeys(CLUSTER, 1)
    reset_queries()


@pytest.mark.parametrize("timeout", [None, 60], ids=["no deadline", "deadline"])
def test_wrappers_see_every_statement_in_the_callers_context(timeout: float | None) -> None:
    seen: list[tuple[str, str, bool]] = []

    def watch(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        seen.append((context["connection"].alias, tenant.get(), "shop_order" in sql))
        return execute(sql, params, many, context)

    token = tenant.set("Ada")
    try:
        with ExitStack() as stack:
            for alias in CLUSTER:
                stack.enter_context(connections[alias].execute_wrapper(watch))
            fan_out(Order.objects, timeout=timeout).count()
    finally:
        tenant.reset(token)
    assert sorted(seen) == [(alias, "Ada", True) for alias in sorted(CLUSTER)]


@contextmanager
def slow_statements(ticks: list[int]) -> Iterator[None]:
    """Let every statement over the orders take until somebody has ticked twice."""

    def wait(execute: Any, *args: Any) -> Any:
        wanted, until = len(ticks) + 2, time.monotonic() + 60
        while len(ticks) < wanted:
            assert time.monotonic() < until
            time.sleep(0.001)
        return execute(*args)

    with ExitStack() as stack:
        for alias in CLUSTER:
            stack.enter_context(connections[alias].execute_wrapper(wait))
        yield


def test_the_event_loop_goes_on_meanwhile() -> None:
    orders = fan_out(Order.objects).order_by("total")

    ticks: list[int] = []

    async def ask() -> Any:
        async def tick() -> None:
            while True:
                await asyncio.sleep(0.001)
                ticks.append(1)

        task = asyncio.ensure_future(tick())
        found = (
            await orders.acount(),
            (await orders.aget(total=3)).status,
            (await orders.afirst()).total,  # type: ignore[union-attr]
            [order.total async for order in orders.filter(total__lt=3)],
            [order.total async for order in orders.aiterator(chunk_size=4)],
            await orders.aaggregate(),
            await orders.aexists(),
        )
        task.cancel()
        return found

    with slow_statements(ticks):
        found = async_to_sync(ask)()
    assert found == (16, "shard_c", 0, [0, 1, 2], [*range(16)], {}, True)


def test_fan_outs_that_keep_every_thread_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """What no thread has time for, the caller does: nobody waits for somebody who waits for him."""
    monkeypatch.setattr(threads, "POOL_SIZE", 1)
    monkeypatch.setattr(threads, "_pool", None)
    gate, busy = threading.Event(), threading.Event()

    def occupy() -> bool:
        busy.set()
        return gate.wait(60)

    occupied = threads._threads().submit(occupy)
    assert busy.wait(60)
    assert fan_out(Order.objects).count() == 16
    gate.set()
    assert occupied.result()
    threads._threads().shutdown()


@threaded
@pytest.mark.parametrize("inner", [None, 60], ids=["no deadline", "deadline"])
@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "in a block"])
@pytest.mark.parametrize("first", [False, True], ids=["before", "after"])
def test_wrappers_of_the_callers_thread_may_use_what_other_threads_ask(
    first: bool, atomic: bool, inner: float | None
) -> None:
    asked: list[int] = []

    def ask(execute: Any, *args: Any) -> Any:
        if asked:
            return execute(*args)
        asked.append(0)
        result = execute(*args) if first else None
        asked[0] = fan_out(Order.objects, timeout=inner).count()
        return result if first else execute(*args)

    with transaction.atomic(using="default") if atomic else nullcontext():
        # The shard that the caller's own thread asks.
        with connections["default"].execute_wrapper(ask):
            totals = [order.total for order in fan_out(Order.objects, timeout=60).order_by("total")]
        assert (totals, asked) == ([*range(16)], [16])
        assert fan_out(Order.objects).count() == 16


@threaded
def test_a_wrapper_waits_for_no_thread_that_has_not_begun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "POOL_SIZE", 1)
    monkeypatch.setattr(threads, "_pool", None)
    gate = threading.Event()
    occupied = threads._threads().submit(gate.wait, 60)
    asked: list[int] = []

    def ask(execute: Any, *args: Any) -> Any:
        if not asked:
            asked.append(0)
            asked[0] = fan_out(Order.objects).count()
        return execute(*args)

    with connections["default"].execute_wrapper(ask):
        assert len(fan_out(Order.objects, timeout=60)) == 16
    assert asked == [16]
    assert not occupied.done()
    gate.set()
    threads._threads().shutdown()

"""What servers do to a fan-out: they cancel it, end its sessions, are full. The next query finds all in order."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.models import Avg, Window
from django.db.models.functions import RowNumber
from django.db.transaction import TransactionManagementError

from aggregator import asking, fan_out, multiplexing, threads
from aggregator.partial_results import PartialAggregate
from sharding.errors import ShardsUnavailable
from tests.downtime import down
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.policy.trouble import (
    BOUND,
    are_no_more_than,
    full,
    in_the_end,
    late,
    paused,
    sessions_everywhere,
    slow,
    terminate,
    took_less_than,
    when_waiting,
)
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

CANCEL = "SELECT pg_cancel_backend(%s)"
TERMINATE = "SELECT pg_terminate_backend(%s, 60000)"
READS: dict[str, Callable[[Any], Any]] = {
    "rows": list,
    "a stream": lambda orders: list(orders.iterator(chunk_size=2)),
    "an average": lambda orders: orders.aggregate(Avg("total")),
    "gathered rows": lambda orders: list(orders.annotate(n=Window(RowNumber(), order_by="total"))),
}


@pytest.fixture(autouse=True)
def sessions_before(orders: None) -> Any:
    """No session is left over, nor a transaction that goes on."""
    list(fan_out(Order.objects))
    before = sessions_everywhere()
    yield
    assert fan_out(Order.objects).count() == 16
    assert are_no_more_than(before)
    for alias in CLUSTER:
        assert connections[alias].connection.info.transaction_status.name == "IDLE"
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT count(*) FROM pg_cursors WHERE name <> ''")
            assert cursor.fetchone() == (0,)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_statement_that_is_cancelled(read: Callable[[Any], Any]) -> None:
    """It was asked for, by somebody else: the statement's own error, with the name of the shard."""
    with slow("shard_b"), when_waiting("shard_b", CANCEL), pytest.raises(OperationalError) as caught:
        read(fan_out(Order.objects))
    assert caught.value.__notes__ == ["on shard 'shard_b'"]


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_session_that_is_ended(read: Callable[[Any], Any]) -> None:
    with slow("shard_b"), when_waiting("shard_b", TERMINATE), pytest.raises(ShardsUnavailable) as caught:
        read(fan_out(Order.objects))
    assert list(caught.value.failures) == ["shard_b"]


@pytest.mark.parametrize("statement", [CANCEL, TERMINATE], ids=["cancelled", "ended"])
@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_a_partial_answer(read: Callable[[Any], Any], statement: str) -> None:
    orders = fan_out(Order.objects, on_error="partial")
    with slow("shard_b"), when_waiting("shard_b", statement):
        found = read(orders)
    _lacks("shard_b", found)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("trouble", [slow, paused], ids=["slow", "paused"])
def test_a_partial_answer_at_the_deadline(trouble: Any, read: Callable[[Any], Any]) -> None:
    """What the others gave in time is finished, also where a shard would have finished it that is missing."""

    def check(alias: str, seconds: float) -> None:
        list(fan_out(Order.objects))
        with trouble(alias), took_less_than(seconds + BOUND):
            _lacks(alias, read(fan_out(Order.objects, on_error="partial", timeout=seconds)))

    for alias in ("shard_a", "shard_b"):
        in_the_end(partial(check, alias))


def _lacks(alias: str, found: Any) -> None:
    totals = [total for total in range(16) if CLUSTER[total % 4] != alias]
    if isinstance(found, PartialAggregate):
        late(found.missing, alias)
        assert float(found["total__avg"]) == pytest.approx(sum(totals) / 12)
    else:
        late({*CLUSTER} - {CLUSTER[int(order.total) % 4] for order in found}, alias)
        assert sorted(order.total for order in found) == totals


def test_a_shard_that_is_down_gives_the_others_no_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Such as there is for a further statement when some are given up at the deadline."""
    monkeypatch.setattr(asking, "FINISHING", 2 * BOUND)

    def check(seconds: float) -> None:
        orders = fan_out(Order.objects, on_error="partial", timeout=seconds)
        with down("shard_a"), slow("shard_b"), took_less_than(seconds + BOUND):
            late(orders.count().missing, "shard_a", "shard_b")  # type: ignore[attr-defined]

    in_the_end(check)
    assert fan_out(Order.objects).count() == 16


def test_a_server_that_is_full() -> None:
    with full("shard_b"):
        with pytest.raises(ShardsUnavailable) as caught:
            list(fan_out(Order.objects))
        assert list(caught.value.failures) == ["shard_b"]
        assert fan_out(Order.objects, on_error="partial").count() == 12
    assert fan_out(Order.objects).count() == 16


@pytest.mark.parametrize("statement", [CANCEL, TERMINATE], ids=["cancelled", "ended"])
def test_inside_a_block(statement: str) -> None:
    """The block is spoilt, as in one database, whoever swallows the error."""

    def block() -> None:
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=tenant_on("shard_a"), total=99)
            with slow("shard_b"), when_waiting("shard_b", statement), pytest.raises((DatabaseError, ShardsUnavailable)):
                list(fan_out(Order.objects))

    with pytest.raises((TransactionManagementError, DatabaseError)):
        block()


def test_inside_a_savepoint() -> None:
    with transaction.atomic(using="default"):
        order = Order.objects.create(tenant_id=tenant_on("shard_a"), total=99)
        with slow("shard_b"), when_waiting("shard_b", CANCEL):
            _swallowed()
        assert fan_out(Order.objects).count() == 17
        order.delete()


def _swallowed() -> None:
    with pytest.raises(OperationalError), transaction.atomic(using="default"):
        list(fan_out(Order.objects))


def test_a_session_that_was_lost_before() -> None:
    """The first query finds out, and the next one has another session."""
    terminate("shard_b")
    with pytest.raises(ShardsUnavailable):
        list(fan_out(Order.objects))
    assert fan_out(Order.objects).count() == 16


@pytest.mark.parametrize("atomic", [False, True], ids=["autocommit", "in a block"])
def test_an_interruption_while_a_server_does_not_answer(atomic: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its connection is closed, and the next query, whichever it is, has another one."""
    monkeypatch.setattr(multiplexing, "PATIENCE", 0.3)
    timer = threading.Timer(0.3, signal.raise_signal, [signal.SIGINT])
    block: Any = transaction.atomic(using="default") if atomic else nullcontext()

    def ask() -> None:
        timer.start()
        list(fan_out(Order.objects))

    with paused("shard_b"), pytest.raises(KeyboardInterrupt), block:
        ask()
    timer.join()
    assert Order.objects.filter(tenant_id=tenant_on("shard_b")).count() == 1


def test_no_session_and_no_thread_outlives_a_request() -> None:
    """Those of the pool have none of their own, and sleep."""
    list(fan_out(Order.objects, timeout=60))
    before = sessions_everywhere()

    def view() -> None:
        request_started.send(sender=None)
        for _ in range(3):
            list(fan_out(Order.objects, timeout=60))
            list(fan_out(Order.objects).iterator(chunk_size=2))
        request_finished.send(sender=None)

    views = [threading.Thread(target=view) for _ in range(3)]
    for thread in views:
        thread.start()
    for thread in views:
        thread.join()
    assert are_no_more_than(before)
    ours = {thread.name.partition("_")[0] for thread in threading.enumerate() if thread.name.startswith("fan-out")}
    assert ours == {"fan-out"}
    until = time.monotonic() + 60
    while not threads._threads()._work_queue.empty():
        assert time.monotonic() < until
        time.sleep(0.01)

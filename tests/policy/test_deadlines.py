"""fan_out(timeout=…): shards that are slow or paused, and the connections, sessions and blocks that are left behind."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import Avg, Sum
from django.db.transaction import TransactionManagementError
from django.test import override_settings

from aggregator import deadline, executor, fan_out, on_each_shard
from aggregator.policy import Policy
from sharding.errors import FanOutTimeout
from sharding.testing.statements import statements
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.policy.trouble import (
    BOUND,
    are_no_more_than,
    in_the_end,
    late,
    paused,
    sessions_everywhere,
    slow,
    took_less_than,
    waiting,
)
from tests.settings import SHARDING
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

TIMEOUT = 0.4
Trouble = Callable[[str], AbstractContextManager[None]]

READS: dict[str, Callable[[Any], Any]] = {
    "rows": list,
    "a stream": lambda orders: list(orders.iterator(chunk_size=2)),
    "count": lambda orders: orders.count(),
    "an average": lambda orders: orders.aggregate(Avg("total")),
    "groups": lambda orders: list(orders.values("quantity").annotate(n=Sum("total"))),
    "an inner query": lambda orders: orders.order_by("total")[:9].count(),
    "one key": lambda orders: list(orders.filter(tenant_id=tenant_on("shard_b"))),
    "an update": lambda orders: orders.update(status="done"),
}
MESSAGE = (
    "These shards did not answer within {:g} seconds: shard_b. A part of an answer is no answer, so there is none. "
    'Give them more time by timeout=, or do without them by on_error="partial".'
)


def asked(seconds: float = TIMEOUT) -> Any:
    return fan_out(Order.objects, timeout=seconds)


def in_time() -> Any:
    """Return the same, with a deadline that a slow machine keeps."""
    return asked(60)


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that was asked to end a statement is given the time for it."""
    monkeypatch.setattr(deadline, "ASKING", 60.0)
    monkeypatch.setattr(deadline, "GRACE", 60.0)


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
@pytest.mark.parametrize("trouble", [slow, paused], ids=["slow", "paused"])
def test_a_shard_that_does_not_answer_in_time(trouble: Trouble, read: Callable[[Any], Any]) -> None:

    def check(seconds: float) -> None:
        list(fan_out(Order.objects))
        with trouble("shard_b"), took_less_than(seconds + BOUND), pytest.raises(FanOutTimeout) as caught:
            read(asked(seconds))
        late(caught.value.failures, "shard_b")
        assert caught.value.timeout == seconds
        if read is not READS["an update"]:
            assert str(caught.value) == MESSAGE.format(seconds)

    in_the_end(check)
    assert fan_out(Order.objects).exclude(status="done").count() == 16
    assert in_time().count() == 16


def test_the_server_gives_up_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody asks it to; nobody waits for the lock then, and the session is the same."""
    monkeypatch.setattr(deadline, "SLACK", 60.0)
    list(fan_out(Order.objects))
    before = connections["shard_b"].connection.info.backend_pid

    def check(seconds: float) -> None:
        with slow("shard_b"):
            with pytest.raises(FanOutTimeout) as caught:
                asked(seconds).count()
            late(caught.value.failures, "shard_b")
            assert waiting("shard_b") == []
        assert caught.value.failures["shard_b"].__cause__.sqlstate == "57014"  # type: ignore[union-attr]

    in_the_end(check)
    assert fan_out(Order.objects).count() == 16
    assert connections["shard_b"].connection.info.backend_pid == before


def test_a_paused_server_costs_its_connection_and_no_other() -> None:
    list(fan_out(Order.objects))
    numbers = sessions_everywhere()

    def check(seconds: float) -> None:
        before = _pids()
        with paused("shard_b"), pytest.raises(FanOutTimeout) as caught:
            asked(seconds).count()
        late(caught.value.failures, "shard_b")
        assert connections["shard_b"].connection is None
        assert fan_out(Order.objects).count() == 16
        after = _pids()
        assert {alias for alias in CLUSTER if before[alias] != after[alias]} == {"shard_b"}

    in_the_end(check)
    assert are_no_more_than(numbers)


def _pids() -> dict[str, int]:
    return {alias: connections[alias].connection.info.backend_pid for alias in CLUSTER}


def test_a_paused_server_to_which_nobody_is_connected() -> None:
    """The driver takes two seconds at least for it; the others are connected to meanwhile."""

    def check(seconds: float) -> None:
        for alias in CLUSTER[1:]:
            connections[alias].close()
        with paused("shard_a"), took_less_than(seconds + BOUND), pytest.raises(FanOutTimeout) as caught:
            asked(seconds).count()
        late(caught.value.failures, "shard_a")

    in_the_end(check)
    assert in_time().count() == 16


@pytest.mark.usefixtures("patient")
def test_several_statements_share_one_deadline() -> None:
    """What no limit of a single statement ends is cancelled."""

    def nap(connection: Any) -> None:
        for _ in range(20):
            with connection.cursor() as cursor:
                cursor.execute("SELECT pg_sleep(0.2)")

    list(fan_out(Order.objects))
    before = connections["shard_b"].connection.info.backend_pid
    door = connections["default"]
    with (
        took_less_than(BOUND),
        executor.participating(door, CLUSTER, Policy(timeout=TIMEOUT)) as found,
        pytest.raises(FanOutTimeout) as caught,
    ):
        executor.run(found, nap)
    assert list(caught.value.failures) == CLUSTER
    assert in_time().count() == 16
    assert connections["shard_b"].connection.info.backend_pid == before


def test_the_limit_is_over_with_the_answer() -> None:
    connections["shard_b"].cursor().execute("SET statement_timeout = '7s'")
    try:
        assert in_time().count() == 16
        assert _limit("shard_b") == "7s"
        with transaction.atomic(using="default"):
            assert in_time().count() == 16
            assert _limit("shard_b") == "7s"
            assert _limit("shard_a") == "0"
    finally:
        connections["shard_b"].close()


def test_a_lower_limit_of_the_session_is_kept() -> None:
    connections["shard_b"].cursor().execute("SET statement_timeout = '100ms'")
    try:
        with slow("shard_b"), took_less_than(BOUND), pytest.raises(Exception, match="statement timeout") as caught:
            fan_out(Order.objects, timeout=60).count()
        assert caught.value.__notes__ == ["on shard 'shard_b'"]
    finally:
        connections["shard_b"].close()


def _limit(alias: str) -> str:
    with connections[alias].cursor() as cursor:
        cursor.execute("SHOW statement_timeout")
        return str(cursor.fetchone()[0])


@pytest.mark.parametrize("trouble", [slow, paused], ids=["slow", "paused"])
def test_inside_a_block(trouble: Trouble) -> None:
    """As in one database, a block in which a statement has failed can only be left."""
    spent = " Nothing more can be done in the atomic block around the query: leave it, and begin another."

    def block(seconds: float) -> None:
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=tenant_on("shard_a"), total=99)
            with trouble("shard_b"), took_less_than(seconds + BOUND), pytest.raises(FanOutTimeout) as caught:
                asked(seconds).count()
            late(caught.value.failures, "shard_b")
            assert str(caught.value) == MESSAGE.format(seconds) + spent

    def check(seconds: float) -> None:
        with pytest.raises(TransactionManagementError):
            block(seconds)

    in_the_end(check)
    assert fan_out(Order.objects).count() == 16
    with transaction.atomic(using="default"):
        assert in_time().count() == 16


@pytest.mark.usefixtures("patient")
def test_a_savepoint_around_the_query_saves_the_block() -> None:
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=tenant_on("shard_b"), total=99)
        with (
            pytest.raises(FanOutTimeout),
            transaction.atomic(using="default"),
            executor.participating(connections["default"], CLUSTER, Policy(timeout=TIMEOUT)) as found,
        ):
            executor.run(found, _sleep_on_b)
        assert in_time().count() == 17
    assert in_time().count() == 17


def _sleep_on_b(connection: Any) -> None:
    if connection.alias == "shard_b":
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_sleep(30)")


def test_the_setting_is_the_default() -> None:
    with override_settings(SHARDING={**SHARDING, "FAN_OUT_TIMEOUT": TIMEOUT}), slow("shard_b"):
        with took_less_than(BOUND), pytest.raises(FanOutTimeout):
            fan_out(Order.objects).count()
        with took_less_than(BOUND), pytest.raises(FanOutTimeout):
            list(Order.objects.filter(tenant_id__in=[tenant_on("shard_a"), tenant_on("shard_b")]))
    with override_settings(SHARDING={**SHARDING, "FAN_OUT_TIMEOUT": 0.001}):
        assert fan_out(Order.objects, timeout=float("inf")).count() == 16
        # One key is no fan-out.
        assert Order.objects.filter(tenant_id=tenant_on("shard_b")).count() == 1


def test_a_function_of_ones_own_takes_its_time() -> None:
    """What it does may not be allowed in a transaction."""

    def vacuum(connection: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute("VACUUM shop_order")
            cursor.execute("SELECT pg_sleep(0.1)")

    with override_settings(SHARDING={**SHARDING, "FAN_OUT_TIMEOUT": 0.05}):
        assert set(on_each_shard(vacuum, parallel=True)) == set(CLUSTER)


def test_no_thread_outlives_its_answer() -> None:
    for _ in range(3):
        in_time().count()
    with paused("shard_b"), pytest.raises(FanOutTimeout):
        asked().count()
    names = [thread.name for thread in threading.enumerate()]
    assert "fan-out-deadline" not in names
    assert all(each.alias in connections for each in connections.all(initialized_only=True))


def test_the_statements_are_the_same() -> None:
    """What keeps the deadline is no statement of the caller's: not in the log, nor in what a test counts."""
    plain, limited = [], []
    for timeout, found in ((None, plain), (60, limited)):
        with statements(transactions=True) as recorded:
            list(fan_out(Order.objects, timeout=timeout).order_by("total")[:3])
        found.append({alias: list(sql) for alias, sql in recorded.items()})
    assert plain == limited
    assert set(plain[0]) == set(CLUSTER)

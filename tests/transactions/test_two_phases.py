"""
Blocks over several databases that commit in two phases: what `atomic()` promises holds for all of them together.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.db import IntegrityError, OperationalError, connections, transaction
from psycopg import IsolationLevel

from sharding.commits import decisions
from sharding.control import Decision
from sharding.testing.statements import statements
from tests.blocks import undone
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Line, Order, Region
from tests.transactions.conftest import Rows, elsewhere, prepared, stored

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def _nothing_is_left(transactional_db: None) -> Iterator[None]:
    Decision.objects.using("default").all().delete()
    decisions.carried_out.clear()
    yield
    assert prepared() == []
    left = set(Decision.objects.using("default").values_list("transaction", flat=True))
    # What is carried out is deleted now and then.
    assert left <= set(decisions.carried_out)
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


def _everywhere(rows: Rows, status: str = "two") -> None:
    Order.objects.create(tenant_id=rows.a, status=status)
    Order.objects.create(tenant_id=rows.b, status=status)
    Region.objects.create(name=status)


def _count(rows: Rows, status: str = "two") -> tuple[int, int, int]:
    orders = [Order.objects.filter(tenant_id=tenant, status=status).count() for tenant in (rows.a, rows.b)]
    return (*orders, Region.objects.filter(name=status).count())  # type: ignore[return-value]


def test_on_commit_runs_after_the_decision_and_once(rows: Rows) -> None:
    seen: list[Any] = []
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: seen.append(elsewhere(lambda: _count(rows))))
        _everywhere(rows)
        for alias in ("shard_a", "shard_b"):
            # Registered on a shard by name, it still waits for the whole block.
            transaction.on_commit(lambda: seen.append(elsewhere(lambda: _count(rows))), using=alias)
    assert seen == [(1, 1, 1)] * 3


def test_nothing_is_called_when_a_shard_refuses(rows: Rows) -> None:
    before = stored()
    called: list[str] = []
    gone = Order.objects.create(tenant_id=rows.b)
    Order.objects.filter(pk=gone.pk).delete()

    def block() -> None:
        with transaction.atomic(using="default"):
            transaction.on_commit(lambda: called.append("default"))
            _everywhere(rows)
            transaction.on_commit(lambda: called.append("shard_a"), using="shard_a")
            # Its constraint is deferred: only PREPARE finds that the order is gone.
            Line.objects.create(tenant_id=rows.b, order_id=gone.pk)

    with pytest.raises(IntegrityError, match="foreign key constraint"):
        block()
    assert (stored(), called) == (before, [])


def test_savepoints_reach_every_database(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        _everywhere(rows, "outer")
        with undone():
            _everywhere(rows, "inner")
        with transaction.atomic(using="default"):
            _everywhere(rows, "kept")
    assert [_count(rows, status) for status in ("outer", "inner", "kept")] == [(1, 1, 1), (0, 0, 0), (1, 1, 1)]


def test_a_durable_block(rows: Rows) -> None:
    with transaction.atomic(using="default", durable=True):
        _everywhere(rows)
    assert _count(rows) == (1, 1, 1)


def test_row_locks_on_two_shards_are_held_together(rows: Rows) -> None:
    there = Order.objects.create(tenant_id=rows.b)

    def is_locked(order: Order) -> bool:
        def lock() -> bool:
            with transaction.atomic(using="default"):
                found = Order.objects.select_for_update(skip_locked=True).filter(pk=order.pk)
                return not list(found)

        return bool(elsewhere(lock))

    with transaction.atomic(using="default"):
        list(Order.objects.select_for_update().filter(pk__in=[rows.order.pk, there.pk]))
        assert (is_locked(rows.order), is_locked(there)) == (True, True)
    assert (is_locked(rows.order), is_locked(there)) == (False, False)


@contextmanager
def _isolation(level: IsolationLevel, *aliases: str) -> Iterator[None]:
    """Let every connection of this thread be opened anew with an isolation level of its own."""
    for alias in aliases:
        connections[alias].close()
        connections[alias].isolation_level = level  # type: ignore[attr-defined]
        connections[alias].ensure_connection()
        connections[alias].connection.isolation_level = level
    try:
        yield
    finally:
        for alias in aliases:
            connections[alias].close()
            connections[alias].isolation_level = IsolationLevel.READ_COMMITTED  # type: ignore[attr-defined]


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_stricter_isolation(level: IsolationLevel, rows: Rows) -> None:
    with _isolation(level, *CLUSTER):
        with transaction.atomic(using="default"):
            _everywhere(rows)
            assert connections["shard_a"].connection.info.transaction_status.name == "INTRANS"
        assert _count(rows) == (1, 1, 1)


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_a_concurrent_change_fails_the_whole_block(level: IsolationLevel, rows: Rows) -> None:
    called: list[int] = []

    def block() -> None:
        with transaction.atomic(using="default"):
            transaction.on_commit(lambda: called.append(1))
            _everywhere(rows)
            list(Order.objects.filter(pk=rows.order.pk))
            elsewhere(lambda: Order.objects.filter(pk=rows.order.pk).update(status="theirs"))
            Order.objects.filter(pk=rows.order.pk).update(status="ours")

    with _isolation(level, *CLUSTER), pytest.raises(OperationalError, match="could not serialize access"):
        block()
    assert (_count(rows), called) == ((0, 0, 0), [])
    assert Order.objects.get(pk=rows.order.pk).status == "theirs"


def test_write_skew_is_refused_by_a_serializable_shard(rows: Rows) -> None:
    """Two blocks read what the other one writes: PREPARE or the statement before it fails, and nothing stays."""
    other = Order.objects.create(tenant_id=rows.a, status="new")

    def theirs() -> None:
        with _isolation(IsolationLevel.SERIALIZABLE, *CLUSTER), transaction.atomic(using="default"):
            assert Order.objects.filter(tenant_id=rows.a, status="new").count() == 2
            Order.objects.filter(pk=other.pk).update(status="theirs")

    def block() -> None:
        with transaction.atomic(using="default"):
            assert Order.objects.filter(tenant_id=rows.a, status="new").count() == 2
            elsewhere(theirs)
            Order.objects.filter(pk=rows.order.pk).update(status="ours")
            Order.objects.create(tenant_id=rows.b, status="ours")

    with _isolation(IsolationLevel.SERIALIZABLE, *CLUSTER), pytest.raises(OperationalError, match="serialize"):
        block()
    assert _count(rows, "ours") == (0, 0, 0)
    assert Order.objects.get(pk=other.pk).status == "theirs"


def test_async_code(rows: Rows) -> None:
    called: list[int] = []

    def block() -> None:
        with transaction.atomic(using="default"):
            transaction.on_commit(lambda: called.append(1))
            _everywhere(rows)

    async def view() -> int:
        await sync_to_async(block)()
        try:
            return await Order.objects.filter(tenant_id=rows.b, status="two").acount()
        finally:
            await sync_to_async(connections.close_all)()

    # Its database connections are those of another thread.
    assert elsewhere(lambda: asyncio.run(view())) == 1
    assert (_count(rows), called) == ((1, 1, 1), [1])


def test_a_decision_waits_for_the_disk(rows: Rows) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        try:
            with transaction.atomic(using="default"):
                assert decisions.decide(cursor, "0000000000000000.1", ["shard_a"])
                cursor.execute("SHOW synchronous_commit")
                assert cursor.fetchone() == ("local",)
            cursor.execute("SHOW synchronous_commit")
            assert cursor.fetchone() == ("off",)
        finally:
            cursor.execute("RESET synchronous_commit")
            decisions.forget(cursor, ["0000000000000000.1"])


Block = Callable[[Rows], None]


def _two_shards(rows: Rows) -> None:
    Order.objects.filter(tenant_id=rows.a).update(status="x")
    Order.objects.create(tenant_id=rows.b)


def _with_control(rows: Rows) -> None:
    _two_shards(rows)
    Region.objects.create(name="x")


ASKED = "SELECT pg_current_xact_id_if_assigned()::text"
SENT: dict[str, tuple[Block, dict[str, list[str]]]] = {
    "two shards": (
        _two_shards,
        {
            "shard_a": [ASKED, "PREPARE TRANSACTION", "COMMIT PREPARED"],
            "shard_b": [ASKED, "PREPARE TRANSACTION", "COMMIT PREPARED"],
            "default": ["INSERT INTO sharding_decision"],
        },
    ),
    "and the control database": (
        _with_control,
        {
            "shard_a": [ASKED, "PREPARE TRANSACTION", "COMMIT PREPARED"],
            "shard_b": [ASKED, "PREPARE TRANSACTION", "COMMIT PREPARED"],
            "default": [ASKED, "INSERT INTO sharding_decision"],
        },
    ),
}


@pytest.mark.parametrize(("block", "expected"), SENT.values(), ids=SENT)
def test_what_a_commit_sends(block: Block, expected: dict[str, list[str]], rows: Rows) -> None:
    with transaction.atomic(using="default"):
        # The servers have now been asked whether they can prepare.
        _with_control(rows)
    with statements(transactions=True) as sent, transaction.atomic(using="default"):
        block(rows)
        before = {alias: sent.counts.get(alias, 0) for alias in CLUSTER}
    for alias, wanted in expected.items():
        found = sent[alias][before[alias] :]
        assert len(found) == len(wanted)
        assert all(sql.startswith(beginning) for sql, beginning in zip(found, wanted, strict=True))

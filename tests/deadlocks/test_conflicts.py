"""The error of a block that lost says that the block may be repeated; other errors do not."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable

import pytest
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper as SQLite

import sharding
from sharding.conflicts import NOTE
from sharding.errors import CommitInDoubt, PartialCommit
from tests.deadlocks.conftest import Block, blocks, isolate, scalar
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def error_of(function: Callable[[], object]) -> BaseException:
    with pytest.raises(Exception) as raised:  # noqa: PT011 - what it is, is the question
        function()
    return raised.value


def state_of(error: BaseException) -> str:
    return error.__cause__.sqlstate


def lock(rows: Rows, **options: bool) -> None:
    list(Order.objects.select_for_update(**options).filter(tenant_id=rows.a))


def lock_in_block(rows: Rows, **options: bool) -> None:
    with transaction.atomic(using="default"):
        lock(rows, **options)


def overwrite(rows: Rows) -> None:
    with transaction.atomic(using="default"):
        isolate("shard_a", "REPEATABLE READ")
        Order.objects.filter(tenant_id=rows.a).count()
        elsewhere(lambda: Order.objects.filter(tenant_id=rows.a).update(total=1))
        Order.objects.filter(tenant_id=rows.a).update(total=2)


def test_a_lock_that_is_not_granted(rows: Rows):
    with blocks(Block(lambda: lock(rows))) as (holder,):
        holder.go()
        error = error_of(lambda: lock_in_block(rows, nowait=True))
    assert (type(error), state_of(error), error.__notes__) == (OperationalError, "55P03", [NOTE])
    assert sharding.retryable(error)


def test_a_row_that_was_changed_meanwhile(rows: Rows):
    error = error_of(lambda: overwrite(rows))
    assert (type(error), state_of(error), error.__notes__) == (OperationalError, "40001", [NOTE])
    assert sharding.retryable(error)


def test_a_deadlock_on_one_server(rows: Rows):
    other = Order.objects.create(tenant_id=rows.a)

    def lock_one(order: Order):
        return lambda: Order.objects.filter(tenant_id=rows.a, pk=order.pk).update(total=1)

    first, second = Block(lock_one(rows.order), lock_one(other)), Block(lock_one(other), lock_one(rows.order))
    with blocks(first, second):
        first.go()
        second.go()
        first.go(wait=False)
        second.go(wait=False)
        errors = [error for error in (first.end(), second.end()) if error is not None]
    assert [(type(error), state_of(error), error.__notes__) for error in errors] == [
        (OperationalError, "40P01", [NOTE])
    ]
    assert sharding.retryable(errors[0])


def test_a_conflict_at_the_commit(rows: Rows):
    """Write skew: each block reads what the other one writes, and one of them cannot commit."""

    def block(status: str) -> None:
        with transaction.atomic(using="default"):
            isolate("shard_a", "SERIALIZABLE")
            number = Order.objects.filter(tenant_id=rows.a).count()
            if status == "outer":
                elsewhere(lambda: block("inner"))
            Order.objects.create(tenant_id=rows.a, status=status, quantity=number)

    error = error_of(lambda: block("outer"))
    assert (type(error), state_of(error), error.__notes__) == (OperationalError, "40001", [NOTE])


def canceled(rows: Rows, *tenants: int) -> BaseException:
    """Return the error of a waiting block that an operator cancels."""
    pids: list[int] = []

    def wait() -> None:
        for tenant in tenants:
            Order.objects.filter(tenant_id=tenant).count()
        pids.append(connections["shard_a"].connection.info.backend_pid)
        lock(rows)

    with blocks(Block(lambda: lock(rows)), Block(wait)) as (holder, waiting):
        holder.go()
        waiting.go(wait=False)
        cancel = (
            "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'transactionid'"
        )
        while not (pids and scalar("shard_a", cancel, *pids)):
            time.sleep(0.01)
        error = waiting.end()
    assert error is not None
    assert (type(error), state_of(error)) == (OperationalError, "57014")
    return error


def test_a_block_over_several_databases_that_is_canceled(rows: Rows):
    error = canceled(rows, rows.a, rows.b)
    assert error.__notes__ == [NOTE]
    assert sharding.retryable(error)


def test_a_block_on_one_database_that_is_canceled(rows: Rows):
    error = canceled(rows, rows.a)
    assert not hasattr(error, "__notes__")
    assert not sharding.retryable(error)


def test_a_statement_that_takes_too_long(rows: Rows):
    def block() -> None:
        with transaction.atomic(using="default"):
            Order.objects.filter(tenant_id=rows.a).count()
            Order.objects.filter(tenant_id=rows.b).count()
            scalar("shard_a", "SELECT set_config('statement_timeout', '50ms', true)")
            scalar("shard_a", "SELECT pg_sleep(20)")

    error = error_of(block)
    assert state_of(error) == "57014"
    assert not hasattr(error, "__notes__")
    assert not sharding.retryable(error)


def test_a_statement_outside_of_blocks(rows: Rows):
    """It is no block; but who repeats it does no harm."""
    scalar("shard_a", "SELECT set_config('lock_timeout', '50ms', false)")
    try:
        with blocks(Block(lambda: lock(rows))) as (holder,):
            holder.go()
            error = error_of(lambda: Order.objects.filter(tenant_id=rows.a).update(total=1))
    finally:
        connections["shard_a"].close()
    assert not hasattr(error, "__notes__")
    assert sharding.retryable(error)


def test_what_is_no_conflict(rows: Rows):
    def twin() -> None:
        with transaction.atomic(using="default"):
            Order(pk=rows.order.pk, tenant_id=rows.a).save(force_insert=True)

    error = error_of(twin)
    assert (type(error), hasattr(error, "__notes__")) == (IntegrityError, False)
    for each in (
        error,
        ValueError("retry"),
        PartialCommit("", committed=["shard_a"], failed={}),
        CommitInDoubt("", transaction="1"),
    ):
        assert not sharding.retryable(each)


def test_an_error_of_the_applications_own_says_something_else(rows: Rows):
    lost = error_of(lambda: overwrite(rows))
    own = ValueError("sold out")
    own.__cause__ = lost.__cause__
    assert not sharding.retryable(own)
    assert own.__cause__ is not None
    assert sharding.retryable(own.__cause__)


def test_a_busy_sqlite_database(tmp_path):
    file = tmp_path / "db"
    settings = {**connections["default"].settings_dict, "NAME": str(file), "OPTIONS": {"timeout": 0}, "TEST": {}}
    writer, other = SQLite(settings, "writer"), sqlite3.connect(file)
    try:
        other.execute("BEGIN IMMEDIATE")
        error = error_of(lambda: writer.cursor().execute("CREATE TABLE t (a)"))
    finally:
        other.close()
        writer.close()
    assert type(error) is OperationalError
    assert sharding.retryable(error)

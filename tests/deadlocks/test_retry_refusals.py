"""sharding.retry: what it never repeats, where it refuses to run, and what it does not decorate."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext, suppress
from typing import Any, cast

import pytest
from asgiref.sync import sync_to_async
from django.db import OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError

import sharding
from sharding import retrying
from sharding.conflicts import NOTE
from sharding.errors import CrossShardTransaction
from tests.deadlocks.conflicts import Held, closing, held, lose_session
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows

pytestmark = pytest.mark.django_db(databases=[*CLUSTER, "plain"], transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retrying, "FIRST_PAUSE", 0.001)


def not_repeated(row: Held, function) -> list[str]:
    with pytest.raises(OperationalError) as raised:
        sharding.retry(function)()
    assert row.calls == 1
    return raised.value.__notes__


def committed(name: str, alias: str) -> list[str]:
    place = f"{name}.<locals>.function"
    return [NOTE, f"sharding.retry has not repeated {place}(): it had committed on '{alias}' before."]


def test_nothing_is_repeated_after_another_block(rows: Rows):
    def function() -> None:
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        assert not_repeated(row, function) == committed("test_nothing_is_repeated_after_another_block", "default")
    assert Order.objects.filter(tenant_id=rows.b).count() == 1


def test_nothing_is_repeated_after_a_block_on_a_shard_by_name(rows: Rows):
    def function() -> None:
        with transaction.atomic(using="shard_b"):
            Order.objects.create(tenant_id=rows.b)
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_after_a_block_on_a_shard_by_name", "shard_b")


def test_nothing_is_repeated_after_a_statement_without_block(rows: Rows):
    def function() -> None:
        Region.objects.create(name="north")
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_after_a_statement_without_block", "default")


@pytest.mark.parametrize("how", ["by itself", "in a block"])
def test_nothing_is_repeated_after_a_write_with_another_engine(rows: Rows, how: str):
    """It has a transaction of its own, of which the door knows nothing."""

    def function() -> None:
        with transaction.atomic(using="plain") if how == "in a block" else nullcontext():
            Region.objects.using("plain").create(name="north")
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_after_a_write_with_another_engine", "plain")


def test_nothing_is_repeated_after_several_statements_at_once(rows: Rows):
    def function() -> None:
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT 1; INSERT INTO shop_region (name) VALUES ('north')")
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_after_several_statements_at_once", "default")


def test_a_joined_database_with_another_engine_is_a_part_of_the_block(rows: Rows):
    @sharding.retry
    def function() -> int:
        with sharding.atomic("default", "plain"):
            Region.objects.using("plain").create(name="north")
            return row.lock()

    with held(rows, calls=2) as row:
        assert function() == 2
    assert Region.objects.using("plain").count() == 1


def test_nothing_is_repeated_when_a_callback_fails_after_the_commit(rows: Rows):
    def function() -> None:
        with transaction.atomic(using="default"):
            transaction.on_commit(callback, using="default")
            Order.objects.create(tenant_id=rows.b)

    def callback() -> None:
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_when_a_callback_fails_after_the_commit", "default")


def test_nothing_is_repeated_after_an_inner_function_has_committed(rows: Rows):
    @sharding.retry
    def inner() -> None:
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)

    def function() -> None:
        inner()
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_after_an_inner_function_has_committed", "default")


def test_nothing_is_repeated_after_a_commit_of_which_nobody_knows(rows: Rows):
    """The function goes on after a session was lost at its commit, and meets a conflict."""

    def function() -> None:
        with suppress(OperationalError), transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)
            lose_session("shard_b")
        connections["shard_b"].close()
        with transaction.atomic(using="default"):
            row.lock()

    with held(rows) as row:
        notes = not_repeated(row, function)
    assert notes == committed("test_nothing_is_repeated_after_a_commit_of_which_nobody_knows", "default")


def test_reads_and_blocks_that_were_undone_before_do_no_harm(rows: Rows):
    @sharding.retry
    def function() -> int:
        Region.objects.count()
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)
            transaction.set_rollback(True, using="default")
        with transaction.atomic(using="default"):
            pass
        with transaction.atomic(using="default"):
            return row.lock()

    with held(rows, calls=2) as row:
        assert function() == 2
    assert Order.objects.filter(tenant_id=rows.b).count() == 0


def test_a_block_that_may_have_committed_is_not_repeated(rows: Rows):
    """The session is lost while COMMIT is under way: the error is no conflict, and another one cannot hide it."""
    calls: list[int] = []

    @sharding.retry
    def function() -> None:
        calls.append(1)
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)
            lose_session("shard_b")

    with pytest.raises(OperationalError):
        function()
    connections["shard_b"].close()
    assert len(calls) == 1


def test_async_functions_are_not_repeated_after_a_commit(rows: Rows):
    @sync_to_async
    def block() -> None:
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)
        with transaction.atomic(using="default"):
            row.lock()

    @sharding.retry
    async def function() -> None:
        await block()

    with held(rows) as row, pytest.raises(OperationalError) as raised:
        asyncio.run(closing(function))
    assert row.calls == 1
    assert raised.value.__notes__ == committed("test_async_functions_are_not_repeated_after_a_commit", "default")


def test_a_block_that_is_refused_is_not_repeated(rows: Rows, monkeypatch):
    calls: list[int] = []

    @sharding.retry
    def function() -> None:
        calls.append(1)
        raise CrossShardTransaction("refused", aliases=[])

    with pytest.raises(CrossShardTransaction):
        function()
    assert len(calls) == 1


# Where it refuses


@pytest.mark.parametrize("alias", ["default", "shard_a"])
def test_it_refuses_to_run_inside_a_block(rows: Rows, alias):
    @sharding.retry
    def function() -> None:
        raise AssertionError

    message = (
        f"test_it_refuses_to_run_inside_a_block.<locals>.function() is decorated with sharding.retry, and was called "
        f"inside an open atomic block of {alias!r}. Only a whole block can be repeated: decorate the function that "
        f"opens it."
    )
    with (
        transaction.atomic(using=alias),
        pytest.raises(TransactionManagementError, match=whole(message)),
    ):
        function()


@pytest.mark.parametrize("times", [0, -1, 1.5, True, "3", None])
def test_times(times):
    message = f"sharding.retry(times={times!r}) would never call the function. Give an integer from 1."
    with pytest.raises(ValueError, match=whole(message)):
        sharding.retry(times=times)


def test_what_it_decorates():
    with pytest.raises(TypeError, match=whole("sharding.retry decorates a function, not 3.")):
        sharding.retry(cast("Any", 3))

    def numbers():
        yield 1

    async def later():
        yield 1

    for function in (numbers, later):
        message = (
            f"sharding.retry cannot repeat the generator {function.__qualname__}(), of which its caller has seen a "
            f"part. Decorate a function that holds the whole block and returns."
        )
        with pytest.raises(TypeError, match=whole(message)):
            sharding.retry(function)

"""When a block spans several databases, none of them waits for a lock for ever; before that nothing is changed."""

from __future__ import annotations

import pytest
from django.db import DataError, OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import TestCase, override_settings

from sharding.testing.statements import statements
from tests.blocks import savepoint, undone
from tests.deadlocks.conftest import BOUND, Block, blocks, scalar
from tests.deadlocks.waits import stuck
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.settings import SHARDING
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def limit(alias: str) -> str:
    return scalar(alias, "SHOW lock_timeout")


def limits() -> list[str]:
    return [limit(alias) for alias in CLUSTER]


def touch(*tenants: int) -> None:
    for tenant in tenants:
        Order.objects.filter(tenant_id=tenant).count()


def given(seconds: float | None):
    return override_settings(SHARDING={**SHARDING, "LOCK_TIMEOUT": seconds})


def test_the_second_shard(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        assert limit("shard_a") == "0"
        touch(rows.b)
        assert (limit("shard_a"), limit("shard_b")) == ("10s", "10s")
        touch(tenant_on("shard_c"))
        assert limit("shard_c") == "10s"
    assert limits() == ["0"] * 4


def test_the_control_database_as_the_second(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        Region.objects.count()
        assert (limit("shard_a"), limit("default")) == ("10s", "10s")
    assert limits() == ["0"] * 4


def test_the_control_database_as_the_first(rows: Rows):
    with transaction.atomic(using="default"):
        Region.objects.count()
        assert limit("default") == "0"
        touch(rows.a)
        assert (limit("shard_a"), limit("default")) == ("10s", "10s")


def test_a_block_on_one_database_is_told_nothing(rows: Rows):
    with transaction.atomic(using="default"), transaction.atomic(using="default"):
        touch(rows.a, rows.a)
        assert limit("shard_a") == "0"
    with transaction.atomic(using="default"):
        Region.objects.count()
        assert limit("default") == "0"


@pytest.mark.parametrize("seconds", [0.25, None])
def test_the_setting(seconds, rows: Rows):
    with given(seconds), transaction.atomic(using="default"):
        touch(rows.a, rows.b)
        assert limit("shard_b") == ("250ms" if seconds else "0")


@pytest.mark.parametrize("own", ["3s", "1h"])
def test_a_limit_of_the_applications_own_is_kept(own, rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        with connections["shard_a"].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{own}'")
        touch(rows.b)
        assert (limit("shard_a"), limit("shard_b")) == (own, "10s")


def test_a_limit_of_the_session_is_kept(rows: Rows):
    touch(rows.b)
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("SET lock_timeout = '7s'")
    try:
        with transaction.atomic(using="default"):
            touch(rows.a, rows.b)
            assert (limit("shard_a"), limit("shard_b")) == ("10s", "7s")
        assert limit("shard_b") == "7s"
    finally:
        connections["shard_b"].close()


def test_a_limit_that_is_changed_in_the_block_stays_as_it_is(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a, rows.b)
        with connections["shard_b"].cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = 0")
        touch(rows.a, rows.b)
        Region.objects.count()
        assert (limit("default"), limit("shard_a"), limit("shard_b")) == ("10s", "10s", "0")


def test_a_nested_block_that_is_undone_takes_its_second_database_and_the_limit_along(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        with undone():
            touch(rows.a, rows.b)
            assert limit("shard_a") == "10s"
        assert limit("shard_a") == "0"
        touch(rows.b)
        assert (limit("shard_a"), limit("shard_b")) == ("10s", "10s")


def test_a_nested_block_that_is_undone_when_the_control_database_came_second(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        with undone():
            touch(rows.a)
            Region.objects.count()
        Region.objects.count()
        touch(rows.a)
        assert (limit("default"), limit("shard_a")) == ("10s", "10s")


def test_a_nested_block_that_succeeds_leaves_the_limits_to_the_outer_one(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        with transaction.atomic(using="default"):
            touch(rows.a, rows.b)
        with undone():
            touch(rows.a, rows.b)
        first = savepoint(using="default")
        touch(rows.a)
        transaction.savepoint_rollback(first, using="default")
        assert (limit("shard_a"), limit("shard_b")) == ("10s", "10s")


def test_isolation_can_still_be_set_after_a_database_has_joined(rows: Rows):
    with transaction.atomic(using="default"):
        touch(rows.a)
        with connections["default"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert scalar("default", "SHOW transaction_isolation") == "repeatable read"
        assert limit("default") == "10s"


def test_a_database_whose_transaction_has_failed_is_left_alone(rows: Rows):
    def block() -> None:
        with transaction.atomic(using="default"):
            touch(rows.a)
            with pytest.raises(DataError):
                scalar("shard_a", "SELECT 1 / 0")
            touch(rows.b)
            assert limit("shard_b") == "10s"

    with pytest.raises(TransactionManagementError):
        block()


def test_a_database_that_is_lost_when_another_one_joins_is_named(rows: Rows):
    def block() -> None:
        with transaction.atomic(using="default"):
            touch(rows.a)
            pid = connections["shard_a"].connection.info.backend_pid
            elsewhere(lambda: scalar("shard_a", "SELECT pg_terminate_backend(%s, 60000)", pid))
            touch(rows.b)

    with pytest.raises(OperationalError) as raised:
        block()
    connections["shard_a"].close()
    assert raised.value.__notes__ == [
        "This was met on 'shard_a', when the atomic block came to span several databases."
    ]


def test_what_is_said_to_the_servers_is_none_of_the_applications_statements(rows: Rows):
    with statements(transactions=True) as sent, transaction.atomic(using="default"):
        touch(rows.a, rows.b)
        Region.objects.count()
    assert not any("lock_timeout" in sql for _, sql in sent.sent)


def test_two_blocks_in_opposite_order_end_within_the_bound(rows: Rows):
    """Without a detector a block gives up by itself, early enough for another one that is more patient."""
    other = Order.objects.create(tenant_id=rows.b)

    def set_total(order: Order, total: int):
        return lambda: Order.objects.filter(tenant_id=order.tenant_id, pk=order.pk).update(total=total)

    def patiently() -> None:
        touch(rows.a)
        with connections["shard_a"].cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = '{2 * BOUND}s'")
        set_total(rows.order, 2)()

    with given(0.5):
        first = Block(set_total(rows.order, 1), set_total(other, 1))
        second = Block(set_total(other, 2), patiently)
        with blocks(first, second):
            first.go()
            second.go()
            second.go(wait=False)
            stuck(second)
            first.go(wait=False)
            errors = [first.end(), second.end()]
    assert [type(error) for error in errors] == [OperationalError, type(None)]
    assert str(errors[0]).splitlines()[0] == "canceling statement due to lock timeout"
    assert {order.total for order in Order.objects.filter(tenant_id__in=[rows.a, rows.b])} == {2}


def test_only_a_superuser_may_set_deadlock_timeout(transactional_db):
    """Which is why there is no setting for it."""
    message = 'permission denied to set parameter "deadlock_timeout"'
    with pytest.raises(Exception, match=whole(message)), transaction.atomic(using="shard_a"):
        scalar("shard_a", "SET LOCAL deadlock_timeout = '100ms'")


class InTestCase(TestCase):
    databases = CLUSTER

    def test_the_tests_own_transactions_stay_as_they_are(self):
        with transaction.atomic(using="default"):
            touch(tenant_on("shard_a"), tenant_on("shard_b"))
        assert (limit("shard_a"), limit("shard_b")) == ("0", "0")

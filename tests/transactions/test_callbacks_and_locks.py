"""
When the callbacks of blocks run, and that rows stay locked until their block ends.
"""

from __future__ import annotations

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

from tests.blocks import undone
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def test_on_commit_runs_once_when_all_is_committed(rows: Rows) -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(elsewhere(lambda: Order.objects.filter(tenant_id=rows.b).count()))
        seen.append([alias for alias in CLUSTER if connections[alias].in_atomic_block])

    with transaction.atomic(using="default"):
        with transaction.atomic(using="default"):
            transaction.on_commit(look)
        Order.objects.create(tenant_id=rows.b)
        assert seen == []
    assert seen == [1, []]


def test_on_commit_in_blocks_that_are_undone(rows: Rows) -> None:
    called: list[str] = []
    with undone():
        transaction.on_commit(lambda: called.append("undone"))
        Order.objects.create(tenant_id=rows.a)
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append("outer"))
        with undone():
            transaction.on_commit(lambda: called.append("inner"))
            Order.objects.create(tenant_id=rows.a)
        Order.objects.filter(tenant_id=rows.a).count()
    transaction.on_commit(lambda: called.append("at once"))
    assert called == ["outer", "at once"]


def test_on_commit_of_a_block_that_touches_nothing(transactional_db: None) -> None:
    called: list[int] = []
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append(1))
    assert called == [1]


def test_select_for_update(rows: Rows) -> None:
    locked = Order.objects.select_for_update(nowait=True).filter(tenant_id=rows.a)
    if not connections["shard_a"].features.has_select_for_update:
        # SQLite has no row locks, and Django leaves the words out.
        with transaction.atomic(using="default"):
            assert list(Order.objects.select_for_update().filter(tenant_id=rows.a)) == [rows.order]
        return
    message = "select_for_update cannot be used outside of a transaction."
    with pytest.raises(TransactionManagementError, match=whole(message)):
        list(locked)

    def lock_elsewhere() -> str:
        with transaction.atomic(using="default"):
            try:
                return f"{len(locked.all())} locked"
            except Exception as error:
                transaction.set_rollback(True, using="default")
                return type(error).__name__

    with transaction.atomic(using="default"):
        assert list(locked) == [rows.order]
        assert elsewhere(lock_elsewhere) == "OperationalError"
    assert elsewhere(lock_elsewhere) == "1 locked"

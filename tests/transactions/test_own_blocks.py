"""
A block over several databases, inside another block of one of them: it cannot be committed before the one around it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from django.db import transaction

from sharding.commits import recovery
from sharding.errors import CrossShardTransaction
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order
from tests.transactions.conftest import Rows, prepared, stored

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def _nothing_is_prepared(transactional_db: None) -> Iterator[None]:
    yield
    left = prepared()
    # The tables could not be emptied.
    recovery.resolve_now(min_age=0, only=CLUSTER)
    assert left == []


def test_a_block_of_one_shard_around_it(rows: Rows) -> None:
    before = stored()
    message = (
        "This atomic block wrote to shard_a, shard_b, and was rolled back on all of them: shard_a is inside an atomic "
        "block of its own, which goes on. Open transaction.atomic() around that one, or write to one database per "
        "block."
    )
    with transaction.atomic(using="shard_a"):
        Order.objects.using("shard_a").create(tenant_id=rows.a, status="around")
        with pytest.raises(CrossShardTransaction, match=whole(message)), transaction.atomic(using="default"):  # noqa: PT012
            Order.objects.create(tenant_id=rows.a, status="inside")
            Order.objects.create(tenant_id=rows.b, status="inside")
    after = stored()
    assert [row["status"] for _, row in after.pop("Order") if row not in [r for _, r in before["Order"]]] == ["around"]
    before.pop("Order")
    assert after == before


def test_one_database_inside_its_own_block(rows: Rows) -> None:
    with transaction.atomic(using="shard_a"):
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.a, status="inside")
            assert Order.objects.filter(tenant_id=rows.b).count() == 0
        transaction.set_rollback(True, using="shard_a")
    assert not Order.objects.filter(tenant_id=rows.a, status="inside").exists()


def test_callbacks_wait_for_the_block_around(rows: Rows) -> None:
    called: list[str] = []

    def blocks(*, kept: bool) -> None:
        with transaction.atomic(using="shard_a"):
            transaction.on_commit(lambda: called.append("around"), using="shard_a")
            with transaction.atomic(using="default"):
                Order.objects.create(tenant_id=rows.a, status="inside")
                transaction.on_commit(lambda: called.append("shard"), using="shard_a")
                transaction.on_commit(lambda: called.append("door"))
            assert called == []
            if not kept:
                transaction.set_rollback(True, using="shard_a")

    blocks(kept=False)
    assert called == []
    blocks(kept=True)
    assert called == ["around", "shard", "door"]


def test_a_durable_block_cannot_be_inside(rows: Rows) -> None:
    message = (
        "A durable atomic block cannot write to 'shard_a' while that database is inside an atomic block of its own, "
        "with which it would end. Open transaction.atomic(durable=True) outside of it."
    )
    with (
        transaction.atomic(using="shard_a"),
        pytest.raises(RuntimeError, match=whole(message)),
        transaction.atomic(using="default", durable=True),
    ):
        Order.objects.create(tenant_id=rows.a, status="inside")

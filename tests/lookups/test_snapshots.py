"""Blocks under REPEATABLE READ, whose snapshot of the control database may be older than that of a shard."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connections, transaction

import sharding
from aggregator import fan_out
from sharding.testing.cluster import owners
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.lookups.stored import entries
from tests.shop.models import Member, Region
from tests.transactions.conftest import elsewhere

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("kept"),
]


@pytest.mark.parametrize(
    "write",
    [
        lambda rows: rows.delete(),
        lambda rows: rows.update(email="b@x"),
        lambda rows: rows.update(email=None),
        lambda rows: fan_out(Member.objects).update(email=None),
    ],
    ids=["delete", "update", "to NULL", "to NULL by fan-out"],
)
def test_an_entry_that_the_snapshot_does_not_show(transactional_db, write):
    tenant = tenant_on("shard_a")

    def block() -> None:
        with transaction.atomic(using="default"):
            with connections["default"].cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert not Region.objects.exists()
            elsewhere(lambda: Member.objects.create(tenant_id=tenant, email="ada@x"))
            write(Member.objects.filter(tenant_id=tenant))

    with owners("shard_a", "shard_b", "shard_c"), pytest.raises(OperationalError) as raised:
        block()
    assert sharding.retryable(raised.value)


def test_an_entry_that_the_block_itself_deleted(transactional_db):
    """It is there for everybody else, and in nobody's way."""
    tenant = tenant_on("shard_a")
    with owners("shard_a", "shard_b", "shard_c"):
        for number in range(2):
            Member.objects.create(tenant_id=tenant, email=f"{number}@x", provider="p", subject=number)
        rows = Member.objects.filter(tenant_id=tenant)
        with transaction.atomic(using="default"):
            with connections["default"].cursor() as cursor:
                cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            assert not Region.objects.exists()
            assert rows.update(email=None) == 2
            other = Member.objects.create(tenant_id=tenant, email="0@x", city="Oslo")
            assert rows.exclude(city="Oslo").update(email=None, subject=None) == 2
        assert [*entries()] == [other.pk]

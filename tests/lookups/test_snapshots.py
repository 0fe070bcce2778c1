"""Blocks under REPEATABLE READ, whose snapshot of the control database may be older than that of a shard."""

from __future__ import annotations

import pytest
from django.db import OperationalError, connections, transaction

import sharding
from sharding.testing.cluster import owners
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Member, Region
from tests.transactions.conftest import elsewhere

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("kept"),
]


@pytest.mark.parametrize(
    "write", [lambda rows: rows.delete(), lambda rows: rows.update(email="b@x")], ids=["delete", "update"]
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

"""retry and lock_in_order() on every engine; what needs real locks is in tests/deadlocks."""

from __future__ import annotations

import pytest
from django.db import transaction

from sharding import lock_in_order, retry
from sharding.errors import BlockAborted
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def test_a_block_is_repeated_from_its_beginning(rows: Rows) -> None:
    calls: list[int] = []

    @retry
    def function() -> None:
        calls.append(1)
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b, quantity=len(calls))
            if len(calls) < 3:
                raise BlockAborted("Repeat it.", transaction="1")

    function()
    assert list(Order.objects.filter(tenant_id=rows.b).values_list("quantity", flat=True)) == [3]


def test_nothing_is_repeated_after_a_commit(rows: Rows) -> None:
    @retry
    def function() -> None:
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=rows.b)
        raise BlockAborted("Repeat it.", transaction="1")

    with pytest.raises(BlockAborted):
        function()
    assert Order.objects.filter(tenant_id=rows.b).count() == 1


def test_rows_are_fresh_and_in_the_order_given(rows: Rows) -> None:
    other, region = Order.objects.create(tenant_id=rows.b), Region.objects.create(name="north")
    given = [other, region, rows.order, rows.customer]
    Order.objects.filter(tenant_id__in=[rows.a, rows.b]).update(quantity=7)
    with transaction.atomic(using="default"):
        found = lock_in_order(*given)
        assert lock_in_order(Order.objects.filter(tenant_id=rows.b)) == [other]
    assert found == given
    assert [found[0].quantity, found[2].quantity] == [7, 7]

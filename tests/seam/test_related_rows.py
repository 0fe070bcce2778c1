"""
Reading related rows in every direction: between sharded models, to global ones and back, over ``through`` tables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Prefetch, prefetch_related_objects

from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, Layout
from tests.seam.conftest import Shop
from tests.shop.models import Account, Customer, Device, Entry, Line, Note, Order, OrderTag, Reading

pytestmark = pytest.mark.django_db(databases=CLUSTER)

Call = Callable[[Shop], Any]

READING: dict[str, tuple[Call, int, int]] = {
    "forward, sharded": (lambda shop: Order.objects.get(pk=shop.order.pk).customer == shop.customer, 2, 0),
    "forward, to a global model": (lambda shop: Customer.objects.get(pk=shop.customer.pk).region == shop.region, 1, 1),
    "forward, from a global model": (lambda shop: Note.objects.get(pk=shop.note.pk).order == shop.order, 1, 1),
    "forward, of a proxy": (lambda shop: Line.objects.get(pk=shop.line.pk).order.customer == shop.customer, 3, 0),
    "reverse": (lambda shop: list(shop.order.lines.all()) == [shop.line], 1, 0),
    "reverse, filtered": (lambda shop: list(shop.order.lines.filter(product="tea")) == [shop.line], 1, 0),
    "reverse, counted": (lambda shop: shop.order.lines.count() == 1, 1, 0),
    "reverse, exists": (lambda shop: shop.customer.orders.exists(), 1, 0),
    "reverse, global rows": (lambda shop: list(shop.order.notes.all()) == [shop.note], 0, 1),
    "through": (lambda shop: list(shop.order.tags.all()) == [shop.tag], 1, 0),
    "through, backwards": (lambda shop: list(shop.tag.orders.all()) == [shop.order], 1, 0),
    "through, counted": (lambda shop: shop.order.tags.count() == 1, 1, 0),
    "through, exists": (lambda shop: shop.order.tags.filter(label="gift").exists(), 1, 0),
    "select_related": (
        lambda shop: Line.objects.select_related("order__customer").get(pk=shop.line.pk).order.customer.name == "Ada",
        1,
        0,
    ),
    "a filter over two joins": (
        lambda shop: Line.objects.filter(tenant_id=shop.tenant, order__customer__name="Ada").count() == 1,
        1,
        0,
    ),
    "a filter over a reverse join": (
        lambda shop: Customer.objects.filter(tenant_id=shop.tenant, orders__lines__product="tea").count() == 1,
        1,
        0,
    ),
    "an instance in a filter": (lambda shop: list(Order.objects.filter(customer=shop.customer)) == [shop.order], 1, 0),
    "instances in a filter": (
        lambda shop: list(Order.objects.filter(customer__in=[shop.customer])) == [shop.order],
        1,
        0,
    ),
    "an id in a filter": (lambda shop: list(Order.objects.filter(customer_id=shop.customer.pk)) == [shop.order], 1, 0),
    "a sharded instance in a filter of a global model": (
        lambda shop: list(Note.objects.filter(order=shop.order)) == [shop.note],
        0,
        1,
    ),
    "a global instance in a filter of a sharded model": (
        lambda shop: list(Customer.objects.filter(tenant_id=shop.tenant, region=shop.region)) == [shop.customer],
        1,
        0,
    ),
    "prefetch, three levels": (
        lambda shop: (
            Customer.objects.filter(tenant_id=shop.tenant)
            .prefetch_related("orders__lines", "orders__tags")[0]
            .orders.all()[0]
            .lines.all()[0]
            == shop.line
        ),
        4,
        0,
    ),
    "prefetch, to global and back": (
        lambda shop: (
            Order.objects.filter(tenant_id=shop.tenant)
            .prefetch_related("notes__order", "customer__region")[0]
            .customer.region
            == shop.region
        ),
        2,
        2,
    ),
    "prefetch, own queryset": (
        lambda shop: (
            Order.objects.filter(tenant_id=shop.tenant)
            .prefetch_related(Prefetch("lines", Line.objects.order_by("product"), to_attr="sorted"))[0]
            .sorted
            == [shop.line]
        ),
        2,
        0,
    ),
    "prefetch on objects": (lambda shop: prefetch_related_objects([shop.order], "lines", "customer") is None, 1, 0),
    "prefetch, from a global model": (
        lambda shop: (
            Note.objects.prefetch_related("order__lines").get(pk=shop.note.pk).order.lines.all()[0] == shop.line
        ),
        2,
        1,
    ),
}


@pytest.mark.parametrize(("call", "home", "default"), READING.values(), ids=READING)
def test_reading(call: Call, home: int, default: int, layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(home=home, default=default)), assert_no_fan_out():
        assert call(shop)


def test_keys_that_are_ids(layout: Layout, db: None) -> None:
    account = Account.objects.create(owner="Bo")
    entry = account.entries.create(amount=5)
    with assert_no_fan_out():
        assert entry.bucket == account.bucket
        assert list(account.entries.all()) == [entry]
        assert Entry.objects.select_related("account").get(account=account).account == account
        assert Entry.objects.get(pk=entry.pk).account == account
        assert list(Account.objects.filter(pk=account.pk).prefetch_related("entries")[0].entries.all()) == [entry]


def test_keys_that_are_natural(layout: Layout, db: None) -> None:
    device = Device.objects.create(serial="N-1")
    reading = device.readings.create(value=5)
    with assert_no_fan_out():
        assert reading.bucket == device.bucket
        assert list(device.readings.all()) == [reading]
        assert Reading.objects.get(pk=reading.pk).device == device
        assert Reading.objects.filter(device__serial="N-1").get() == reading
        assert Reading.objects.filter(device=device).get() == reading


def test_deleting_cascades_over_databases(layout: Layout, shop: Shop) -> None:
    # Orders are fetched for their own cascade; lines and taggings are deleted at home, notes at `default`.
    with assert_statements(layout.expect(home=5, default=1)), assert_no_fan_out():
        total, by_model = shop.customer.delete()
    assert by_model == {"shop.Line": 1, "shop.OrderTag": 1, "shop.Note": 1, "shop.Order": 1, "shop.Customer": 1}
    assert total == 5
    assert not Note.objects.exists()
    assert not OrderTag.objects.filter(tenant_id=shop.tenant).exists()

"""
What instances do: saving, deleting, refreshing and validating, one by one and in bulk.
"""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.db import DatabaseError, transaction
from django.db.models import Value
from django.db.models.functions import Upper

from sharding import bucket_of, routing, shard_of
from sharding.errors import BucketMismatch, ShardKeyChanged
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, Layout, tenant_on, tenants_on
from tests.seam.conftest import Shop
from tests.shop.models import Account, Customer, Device, Ledger, Line, Note, Order, PaidOrder, Region, Tag

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_a_row_is_where_its_key_says(layout: Layout, shop: Shop) -> None:
    assert shard_of(shop.order) == layout.home
    for alias in CLUSTER:
        with routing.native(alias):
            assert Order.objects.filter(pk=shop.order.pk).exists() == (alias == layout.home)


def test_save(layout: Layout, shop: Shop) -> None:
    order = Order(tenant_id=shop.tenant)
    with assert_statements(layout.expect(home=1)) as sent, assert_no_fan_out():
        order.save()
    assert sent[layout.home][0].startswith("INSERT")
    order.status = "paid"
    with assert_statements(layout.expect(home=1)) as sent, assert_no_fan_out():
        order.save()
    assert sent[layout.home][0].startswith("UPDATE")
    # The id alone could be another tenant's.
    assert '"shop_order"."tenant_id" = ' in sent[layout.home][0].partition("WHERE")[2]
    assert order._state.db == "default"


def test_save_with_update_fields(layout: Layout, shop: Shop) -> None:
    shop.order.status = "paid"
    with assert_statements(layout.expect(home=1)) as sent:
        shop.order.save(update_fields=["status"])
    assert sent[layout.home][0].startswith('UPDATE "shop_order" SET "status" = %s WHERE ')


@pytest.mark.parametrize("label", ["b", Upper(Value("b"))], ids=["value", "expression"])
def test_an_update_of_a_row_that_cannot_be(label: Any, layout: Layout, shop: Shop) -> None:
    """Django 6 gets generated columns and expressions back from the UPDATE."""
    stranger = next(tenant for tenant in tenants_on(layout.home) if _bucket(tenant) != _bucket(shop.tenant))
    nothing = pytest.raises(DatabaseError, match=r"Forced update did not affect any rows\.")
    with assert_statements({}), nothing, transaction.atomic(using="default"):
        Tag(id=shop.tag.pk, tenant_id=stranger, label=label).save(force_update=True)
    # As loaddata saves.
    with pytest.raises(BucketMismatch, match="was made for bucket"), transaction.atomic(using="default"):
        Tag(id=shop.tag.pk, tenant_id=stranger, label=label).save_base(raw=True)
    shop.tag.refresh_from_db()
    assert (shop.tag.tenant_id, shop.tag.label) == (shop.tenant, "gift")


def test_an_update_with_a_key_that_no_row_can_have(layout: Layout, shop: Shop) -> None:
    too_large = next(tenant for tenant in itertools.count(2**40) if _bucket(tenant) == _bucket(shop.tenant))
    with pytest.raises(DatabaseError, match=r"Forced update did not affect any rows\."):
        Tag(id=shop.tag.pk, tenant_id=too_large, label="b").save(force_update=True)


def _bucket(tenant: int) -> int:
    return bucket_of(tenant, model=Tag)


def test_save_of_a_deferred_instance(layout: Layout, shop: Shop) -> None:
    order = Order.objects.only("status").get(pk=shop.order.pk)
    order.status = "paid"
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        order.save()
    shop.order.refresh_from_db()
    assert shop.order.status == "paid"


def test_loading_a_deferred_field(layout: Layout, shop: Shop) -> None:
    order = Order.objects.defer("status", "tenant_id").get(pk=shop.order.pk)
    with assert_statements(layout.expect(home=2)), assert_no_fan_out():
        assert order.status == "new"
        assert order.tenant_id == shop.tenant


def test_save_of_a_global_row(layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(default=2)):
        region = Region.objects.create(name="south")
        region.name = "west"
        region.save()


def test_delete(layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(home=3, default=1)), assert_no_fan_out():
        assert shop.order.delete() == (
            4,
            {"shop.Line": 1, "shop.OrderTag": 1, "shop.Note": 1, "shop.Order": 1},
        )
    with assert_statements(layout.expect(home=1)):
        shop.customer.orders.exists()


def test_refresh_from_db(layout: Layout, shop: Shop) -> None:
    Order.objects.filter(pk=shop.order.pk).update(status="paid")
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        shop.order.refresh_from_db()
    assert shop.order.status == "paid"
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        shop.order.refresh_from_db(fields=["status"])
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        shop.order.refresh_from_db(from_queryset=Order.objects.select_for_update())


def test_full_clean(layout: Layout, shop: Shop) -> None:
    customer = Customer(tenant_id=shop.tenant, name="Ada", email="other@example.com", region=shop.region)
    # The region exists; the address is not taken.
    with assert_statements(layout.expect(home=1, default=1)), assert_no_fan_out():
        customer.full_clean(exclude=["joined"])
    customer.email = "ada@example.com"
    with pytest.raises(ValidationError) as refused:
        customer.full_clean(exclude=["joined"])
    assert refused.value.message_dict == {"__all__": ["Customer with this Tenant id and Email already exists."]}


def test_full_clean_looks_for_the_target_of_a_foreign_key(layout: Layout, shop: Shop) -> None:
    line = Line(tenant_id=shop.tenant, order=shop.order, product="tea")
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        line.full_clean()
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        Note(order=shop.order, text="from a global model").full_clean()


def test_full_clean_of_a_natural_key(layout: Layout, db: None) -> None:
    Device.objects.create(serial="N-1")
    with assert_no_fan_out(), pytest.raises(ValidationError) as refused:
        Device(serial="N-1", model="x").full_clean()
    assert refused.value.message_dict == {"serial": ["Device with this Serial already exists."]}


def test_a_composite_primary_key(layout: Layout, db: None) -> None:
    tenant = tenant_on(layout.home)
    with assert_statements(layout.expect(home=1)):
        row = Ledger.objects.create(tenant_id=tenant, number=1, text="a")
    with assert_statements(layout.expect(home=4)), assert_no_fan_out():
        assert Ledger.objects.get(pk=(tenant, 1)) == row
        assert Ledger.objects.filter(pk__in=[(tenant, 1), (tenant, 2)]).get() == row
        row.refresh_from_db()
        row.text = "b"
        row.save()
    with assert_statements(layout.expect(home=1)):
        row.delete()


def test_a_key_that_is_the_id(layout: Layout, db: None) -> None:
    account = Account.objects.create(owner="Bo")
    account.owner = "Di"
    with assert_statements({shard_of(account): 4}) as sent, assert_no_fan_out():
        account.save()
        account.refresh_from_db()
        account.full_clean()
        assert Account.objects.get(pk=account.pk).owner == "Di"
        assert Account.objects.for_key(account.pk).count() == 1
    assert sent[shard_of(account)][0].endswith('WHERE "shop_account"."id" = %s')


def test_bulk_create_with_conflicts(layout: Layout, shop: Shop) -> None:
    rows = [
        Customer(tenant_id=shop.tenant, name="Eve", email="ada@example.com"),
        Customer(tenant_id=shop.tenant, name="Bo", email="bo@example.com"),
    ]
    with assert_statements(layout.expect(home=1)):
        Customer.objects.bulk_create(
            rows, update_conflicts=True, unique_fields=["tenant_id", "email"], update_fields=["name"]
        )
    shop.customer.refresh_from_db()
    assert shop.customer.name == "Eve"
    with assert_statements(layout.expect(home=1)):
        Customer.objects.bulk_create(
            [Customer(tenant_id=shop.tenant, name="Al", email="bo@example.com")], ignore_conflicts=True
        )
    assert sorted(Customer.objects.filter(tenant_id=shop.tenant).values_list("name", flat=True)) == ["Bo", "Eve"]


def test_bulk_create_of_two_shards_keeps_the_order(layout: Layout, shop: Shop) -> None:
    there = tenant_on(layout.away or layout.home, 3)
    orders = Order.objects.bulk_create(
        [
            Order(tenant_id=tenant, quantity=place)
            for place, tenant in enumerate([there, shop.tenant, there, shop.tenant])
        ]
    )
    assert [order.quantity for order in orders] == [0, 1, 2, 3]
    for order in orders:
        stored = Order.objects.using(shard_of(order)).get(pk=order.pk)
        assert (stored.tenant_id, stored.quantity, stored.bucket) == (order.tenant_id, order.quantity, order.bucket)


def test_bulk_update_of_instances_that_were_never_read(layout: Layout, shop: Shop) -> None:
    """They hold the id, which tells the bucket, and what is to be written."""
    there = Order.objects.create(tenant_id=tenant_on(layout.away or layout.home, 3))
    stubs = [Order(pk=order.pk, status="sent") for order in (shop.order, there)]
    with assert_statements(layout.expect(home=1, away=1 if layout.away else 0)):
        assert Order.objects.bulk_update(stubs, ["status"]) == 2
    for order in (shop.order, there):
        order.refresh_from_db()
        assert order.status == "sent"


def test_proxy(layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(home=4)), assert_no_fan_out():
        paid = PaidOrder.objects.create(tenant_id=shop.tenant, status="paid")
        assert PaidOrder.objects.get(pk=paid.pk) == paid
        paid.save()
        assert list(PaidOrder.objects.filter(tenant_id=shop.tenant, status="paid")) == [paid]
    with assert_no_fan_out():
        paid.delete()


def test_copying_a_row(layout: Layout, shop: Shop) -> None:
    copied = Order.objects.get(pk=shop.order.pk)
    copied.pk = None
    copied._state.adding = True
    copied.save()
    again = Order.objects.get(pk=shop.order.pk)
    again.pk = None
    again.tenant_id = shop.neighbour
    again.customer = None
    again.save()
    assert {order.pk for order in Order.objects.filter(tenant_id=shop.tenant)} == {shop.order.pk, copied.pk}
    assert Order.objects.get(tenant_id=shop.neighbour) == again
    account = Account.objects.get(pk=shop.account.pk)
    account.pk = None
    account.save()
    assert account.pk != shop.account.pk
    assert Account.objects.get(pk=shop.account.pk).owner == account.owner


def test_refreshing_one_field_does_not_take_a_changed_key_for_the_stored_one(layout: Layout, shop: Shop) -> None:
    shop.order.tenant_id = shop.neighbour
    shop.order.refresh_from_db(fields=["status"])
    with assert_statements({}), pytest.raises(ShardKeyChanged):
        shop.order.save()
    shop.order.refresh_from_db()
    shop.order.save()

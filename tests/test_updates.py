"""
Writes that would leave a row in another bucket than its key, its id or its foreign keys say: refused unsent.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Case, F, UUIDField, Value, When
from django.db.models.functions import Cast, Coalesce

from sharding import bucket_of, ids
from sharding.errors import BucketMismatch, ShardKeyChanged
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Account, Customer, Entry, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@dataclass(frozen=True, slots=True)
class Rows:
    """An order, a customer it may have, and one of another tenant that it may not."""

    order: Order
    customer: Customer
    stranger: Customer

    @property
    def mine(self) -> Any:
        return Order.objects.filter(tenant_id=self.order.tenant_id)


@pytest.fixture
def rows() -> Rows:
    here, there = tenant_on("shard_a"), tenant_on("shard_b")
    customer, stranger = (Customer.objects.create(tenant_id=tenant, email="a@b.c") for tenant in (here, there))
    return Rows(Order.objects.create(tenant_id=here), customer, stranger)


def atomic() -> Any:
    """The error breaks this block, and not the one of the test."""
    return transaction.atomic(using="default")


def changed(instance: Any, **values: Any) -> Any:
    for name, value in values.items():
        setattr(instance, name, value)
    return instance


Write = Callable[[Rows], object]

STRANGERS: dict[str, Write] = {
    "create": lambda rows: Order.objects.create(tenant_id=rows.order.tenant_id, customer=rows.stranger),
    "create by id": lambda rows: Order.objects.create(tenant_id=rows.order.tenant_id, customer_id=rows.stranger.pk),
    "create by Value": lambda rows: Order.objects.create(
        tenant_id=rows.order.tenant_id, customer_id=Value(rows.stranger.pk)
    ),
    "create by a cast": lambda rows: Order.objects.create(
        tenant_id=rows.order.tenant_id, customer_id=Cast(Value(rows.stranger.pk), UUIDField())
    ),
    "save": lambda rows: changed(rows.order, customer=rows.stranger).save(),
    "save of the field": lambda rows: changed(rows.order, customer=rows.stranger).save(update_fields=["customer"]),
    "save of an expression": lambda rows: changed(rows.order, customer_id=Value(rows.stranger.pk)).save(),
    "update": lambda rows: rows.mine.update(customer=rows.stranger),
    "update by id": lambda rows: rows.mine.update(customer_id=rows.stranger.pk),
    "update by Value": lambda rows: rows.mine.update(customer=Value(rows.stranger.pk)),
    "update by a case": lambda rows: rows.mine.update(
        customer=Case(When(status="new", then=Value(rows.stranger.pk)), default=F("customer"))
    ),
    "bulk_create": lambda rows: Order.objects.bulk_create(
        [Order(tenant_id=rows.order.tenant_id), Order(tenant_id=rows.order.tenant_id, customer=rows.stranger)]
    ),
    "bulk_update": lambda rows: Order.objects.bulk_update([changed(rows.order, customer=rows.stranger)], ["customer"]),
    "update_or_create": lambda rows: rows.mine.update_or_create(pk=rows.order.pk, defaults={"customer": rows.stranger}),
    "related add": lambda rows: rows.stranger.orders.add(rows.order, bulk=False),
    "related create": lambda rows: rows.stranger.orders.create(tenant_id=rows.order.tenant_id),
}


@pytest.mark.parametrize("write", STRANGERS.values(), ids=STRANGERS)
def test_foreign_key_to_another_bucket(write: Write, rows: Rows) -> None:
    pk = rows.stranger.pk
    message = (
        f"shop.Order.customer={pk!r} names a row of bucket {rows.stranger.bucket}, but the row belongs to bucket "
        f"{rows.order.bucket} by its tenant_id. Rows that refer to each other must have the same shard key."
    )
    with pytest.raises(BucketMismatch, match=whole(message)) as caught, atomic():
        write(rows)
    error = caught.value
    assert (error.model, error.field, error.value) == ("shop.Order", "customer", pk)
    assert (error.expected, error.found) == (rows.order.bucket, rows.stranger.bucket)
    assert not rows.mine.exclude(customer=None).exists()
    assert not rows.stranger.orders.exists()


def test_foreign_key_to_a_row_of_the_bucket(rows: Rows) -> None:
    with assert_statements({"shard_a": 4}), assert_no_fan_out():
        assert rows.mine.update(customer=rows.customer) == 1
        assert rows.mine.update(customer=None) == 1
        assert rows.mine.update(customer=Case(When(status="new", then=Value(rows.customer.pk)))) == 1
        assert rows.mine.update(customer=F("customer")) == 1
    rows.order.refresh_from_db()
    assert rows.order.customer == rows.customer


def test_foreign_key_to_a_row_that_is_not_saved(rows: Rows) -> None:
    """It is Django's to refuse."""
    message = "Unsaved model instance <Customer: Bo> cannot be used in an ORM query."
    with assert_statements({}), pytest.raises(ValueError, match=whole(message)), atomic():
        rows.mine.update(customer=Customer(tenant_id=1, name="Bo"))


def test_foreign_key_that_the_database_computes(rows: Rows) -> None:
    found = Coalesce("customer", Value(rows.stranger.pk))
    with assert_statements({}), pytest.raises(BucketMismatch) as caught:
        rows.mine.update(customer=found)
    assert str(caught.value).startswith("shop.Order.customer is set to the expression Coalesce(")
    assert str(caught.value).endswith(", so its bucket cannot be verified. Set it to a plain value.")


def test_new_row_with_what_the_database_computes(rows: Rows) -> None:
    found = Coalesce(Value(None), Value(rows.customer.pk), output_field=UUIDField())
    with assert_statements({}), pytest.raises(BucketMismatch) as caught, atomic():
        Order.objects.create(tenant_id=rows.order.tenant_id, customer_id=found)
    assert str(caught.value).startswith("shop.Order.customer is set to the expression Coalesce(")
    cast = Cast(Value(rows.customer.pk), UUIDField())
    made = Order.objects.create(tenant_id=rows.order.tenant_id, customer_id=cast, quantity=Value(2) + 1)
    made.refresh_from_db()
    assert (made.customer, made.quantity) == (rows.customer, 3)


def test_id_of_another_bucket(rows: Rows) -> None:
    pk = ids.new_uuid(rows.stranger.bucket)
    message = (
        f"shop.Order.id={pk!r} was made for bucket {rows.stranger.bucket}, but the row belongs to bucket "
        f"{rows.order.bucket} by its tenant_id. Leave the id empty, and it is made for the row's bucket."
    )
    with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)):
        rows.mine.update(id=pk)
    with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)):
        changed(rows.order, pk=pk).save()


def test_bulk_update_of_a_row_whose_key_was_changed(rows: Rows) -> None:
    order = changed(rows.order, tenant_id=rows.stranger.tenant_id, status="x")
    message = (
        f"shop.Order.id={order.pk!r} was made for bucket {order.bucket}, but the row belongs to bucket "
        f"{rows.stranger.bucket} by its tenant_id. Leave the id empty, and it is made for the row's bucket."
    )
    for names in (["status"], ["tenant_id"]):
        with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)):
            Order.objects.bulk_update([order], names)


def set_to(name: str, value: object) -> str:
    if name == "bucket":
        why = "and the bucket is computed from tenant_id. Leave it out."
    else:
        why = "and a stored row's shard key never changes. "
        why += "Create the row again under the new key, and delete the old one."
    return f"This update would set shop.Order.{name} to {value!r}, {why}"


@pytest.mark.parametrize("value", [0, 4095, None])
def test_update_of_the_bucket(value: int | None, rows: Rows) -> None:
    if value is None:
        # A fixture that leaves the bucket out.
        assert rows.mine.update(bucket=None) == 1
        rows.order.refresh_from_db()
        assert rows.order.bucket == bucket_of(rows.order)
        return
    with assert_statements({}), pytest.raises(ShardKeyChanged, match=whole(set_to("bucket", value))) as caught:
        rows.mine.update(bucket=value)
    assert (caught.value.model, caught.value.field, caught.value.new) == ("shop.Order", "bucket", value)


@pytest.mark.parametrize("value", [0, None, "4", F("quantity"), F("tenant_id") + 1, Value(4)], ids=str)
def test_update_of_the_key(value: Any, rows: Rows) -> None:
    with assert_statements({}), pytest.raises(ShardKeyChanged) as caught:
        rows.mine.update(tenant_id=value)
    assert str(caught.value).startswith("This update would set shop.Order.tenant_id to ")
    assert str(caught.value).endswith(set_to("tenant_id", "").partition("'', ")[2])
    with assert_statements({}), pytest.raises(ShardKeyChanged):
        Order.objects.filter(pk=rows.order.pk).update(tenant_id=value)


def test_update_of_a_key_to_itself(rows: Rows) -> None:
    """save() writes it, and so may an update that names it."""
    tenant = rows.order.tenant_id
    assert rows.mine.update(tenant_id=tenant, status="x") == 1
    assert rows.mine.update(tenant_id=str(tenant)) == 1
    excluded = rows.mine.exclude(tenant_id=tenant + 1)
    with assert_statements({}), pytest.raises(ShardKeyChanged, match=whole(set_to("tenant_id", tenant + 1))), atomic():
        excluded.update(tenant_id=tenant + 1)
    several = Order.objects.filter(tenant_id__in=[tenant, rows.stranger.tenant_id])
    with assert_statements({}), pytest.raises(ShardKeyChanged, match=whole(set_to("tenant_id", tenant))):
        several.update(tenant_id=tenant)


def test_conflicts_that_would_overwrite_the_key(rows: Rows) -> None:
    for name in ("tenant_id", "bucket"):
        message = (
            f"bulk_create() of shop.Order would overwrite {name} of stored rows, and a stored row's shard key never "
            f"changes. Leave {name} out of update_fields."
        )
        with assert_statements({}), pytest.raises(ShardKeyChanged, match=whole(message)), atomic():
            Order.objects.bulk_create([rows.order], update_conflicts=True, unique_fields=["id"], update_fields=[name])


def test_key_that_is_a_foreign_key() -> None:
    old, new = Account.objects.create(owner="Ada"), Account.objects.create(owner="Bo")
    entry = Entry.objects.create(account=old)
    mine = Entry.objects.filter(account=old)
    for value in (new, new.pk, uuid.UUID(int=0)):
        with assert_statements({}), pytest.raises(ShardKeyChanged), atomic():
            mine.update(account=value)
    assert mine.update(account=old, amount=5) == 1
    entry.refresh_from_db()
    assert entry.amount == 5

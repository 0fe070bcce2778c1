"""
A new row without a shard key takes it from the row that it is made under.
"""

from __future__ import annotations

import pytest

from aggregator import fan_out
from sharding import scope
from sharding.errors import BucketMismatch, ScopeConflict, ShardKeyMissing
from tests.layouts import CLUSTER
from tests.messages import whole
from tests.shop.models import Account, Customer, Device, Entry, Line, Order, Reading

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def order() -> Order:
    return Order.objects.create(tenant_id=7)


def test_related_manager(order: Order) -> None:
    assert order.lines.create(product="pen").tenant_id == 7
    assert order.lines.get().product == "pen"


def test_instance(order: Order) -> None:
    line = Line(order=order, product="pen")
    line.save()
    assert line.tenant_id == 7


def test_bulk_create(order: Order) -> None:
    lines = Line.objects.bulk_create([Line(order=order, product=name) for name in ("pen", "ink")])
    assert [line.tenant_id for line in lines] == [7, 7]


def test_bulk_create_under_a_row_that_was_saved_later() -> None:
    """Django takes the id of such a row only after it has asked for the ids of the new ones."""
    account, device = Account(owner="Bo"), Device(serial="N-1")
    entries = [Entry(account=account, amount=amount) for amount in (1, 2)]
    readings = [Reading(device=device, value=3)]
    account.save()
    device.save()
    Entry.objects.bulk_create(entries)
    Reading.objects.bulk_create(readings)
    assert {entry.bucket for entry in account.entries.all()} == {account.bucket}
    assert [entry.amount for entry in account.entries.order_by("amount")] == [1, 2]
    assert device.readings.get().value == 3


def test_a_row_that_was_saved_later_goes_before_the_scope() -> None:
    account, other = Account(owner="Bo"), Account.objects.create(owner="Di")
    entries = [Entry(account=account, amount=1)]
    account.save()
    with scope(other.pk, of=Account), pytest.raises(ScopeConflict):
        Entry.objects.bulk_create(entries)


def test_key_that_is_given_is_kept_and_checked(order: Order) -> None:
    with pytest.raises(BucketMismatch):
        order.lines.create(product="pen", tenant_id=8)


def test_id_alone_is_not_enough(order: Order) -> None:
    """The parent's id holds a bucket, not a key."""
    message = "This Line has no tenant_id, so its shard is unknown. Set tenant_id before saving."
    with pytest.raises(ShardKeyMissing, match=whole(message)):
        Line.objects.create(order_id=order.pk, product="pen")


def test_fan_out_of_a_model() -> None:
    message = (
        "fan_out() takes a queryset or a manager, such as Order.objects, not <class 'tests.shop.models.Customer'>."
    )
    with pytest.raises(TypeError, match=whole(message)):
        fan_out(Customer)  # type: ignore[arg-type]

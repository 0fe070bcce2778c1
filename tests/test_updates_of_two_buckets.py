"""
One value for rows of two buckets: a foreign key would be wrong in one of them, so nothing is written.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Case, QuerySet, Value, When

from aggregator import fan_out
from sharding.errors import BucketMismatch
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Customer, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture(params=["shard_a", "shard_b"], ids=["on one shard", "on two shards"])
def two(request: pytest.FixtureRequest) -> list[Order]:
    """Orders of two tenants, the first one on shard_a."""
    tenants = [tenant_on("shard_a"), tenant_on(request.param, 1)]
    return [Order.objects.create(tenant_id=tenant) for tenant in tenants]


@pytest.fixture
def customer(two: list[Order]) -> Customer:
    customer: Customer = Customer.objects.create(tenant_id=two[0].tenant_id, email="a@b.c")
    return customer


def rows(two: list[Order]) -> QuerySet[Order]:
    return Order.objects.filter(tenant_id__in=[each.tenant_id for each in two])


def plain() -> QuerySet[Order]:
    return QuerySet(Order)


def assign(two: list[Order], *customers: Customer | None) -> list[Order]:
    for order, customer in zip(two, customers, strict=True):
        order.customer = customer
    return two


WRITES: dict[str, Callable[[list[Order], Customer], object]] = {
    "update": lambda two, customer: rows(two).update(customer=customer),
    "update by id": lambda two, customer: Order.objects.filter(pk__in=[each.pk for each in two]).update(
        customer_id=customer.pk
    ),
    "update by a case": lambda two, customer: rows(two).update(
        customer=Case(When(status="new", then=Value(customer.pk)))
    ),
    "update of all": lambda two, customer: fan_out(Order.objects).update(customer=customer),
    "related add": lambda two, customer: customer.orders.add(*two),
    "related set": lambda two, customer: customer.orders.set(two),
    # Our own manager looks at the instances.
    "bulk_update of another manager": lambda two, customer: plain().bulk_update(
        assign(two, None, customer), ["customer"]
    ),
}


@pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
def test_one_foreign_key(write: Any, two: list[Order], customer: Customer) -> None:
    with pytest.raises(BucketMismatch), transaction.atomic(using="default"):
        write(two, customer)
    assert [found.customer_id for found in rows(two)] == [None, None]


def test_the_message(two: list[Order], customer: Customer) -> None:
    message = (
        f"This update would set shop.Order.customer to {customer.pk!r}, a row of bucket {customer.bucket}, for rows of "
        f"other buckets as well. Limit it to one tenant_id."
    )
    with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)) as caught:
        rows(two).update(customer=customer)
    assert (caught.value.field, caught.value.found) == ("customer", customer.bucket)


def test_each_row_its_own_foreign_key(two: list[Order], customer: Customer) -> None:
    theirs = Customer.objects.create(tenant_id=two[1].tenant_id, email="a@b.c")
    assert plain().bulk_update(assign(two, customer, theirs), ["customer"]) == 2
    assert {found.pk: found.customer for found in rows(two)} == {two[0].pk: customer, two[1].pk: theirs}
    assert rows(two).update(customer=None) == 2

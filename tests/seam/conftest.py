"""
The rows that the tests of the seam work on, on each layout of the cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from sharding.testing.cluster import owners
from tests.layouts import LAYOUTS, Layout, tenants_on
from tests.shop.models import Account, Customer, Line, Note, Order, OrderTag, Region, Tag


@pytest.fixture(scope="package", params=LAYOUTS, ids=str)
def layout(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker) -> Iterator[Layout]:
    with django_db_blocker.unblock(), owners(*request.param.owners):
        yield request.param


@pytest.fixture(scope="module")
def three_shards(django_db_setup: None, django_db_blocker) -> Iterator[None]:
    """For tests that name shards: the layout of a test before may still stand."""
    with django_db_blocker.unblock(), owners("shard_a", "shard_b", "shard_c"):
        yield


@dataclass(frozen=True, slots=True)
class Shop:
    """Two tenants at home; the first one has rows."""

    tenant: int
    neighbour: int
    region: Region
    customer: Customer
    order: Order
    line: Line
    tag: Tag
    tagging: OrderTag
    note: Note
    account: Account


@pytest.fixture
def shop(layout: Layout, db: None) -> Shop:
    homes = tenants_on(layout.home)
    tenant, neighbour = next(homes), next(homes)
    region = Region.objects.create(name="north")
    customer = Customer.objects.create(tenant_id=tenant, name="Ada", email="ada@example.com", region=region)
    order = Order.objects.create(tenant_id=tenant, customer=customer, status="new", quantity=3)
    tag = Tag.objects.create(tenant_id=tenant, label="gift")
    return Shop(
        tenant,
        neighbour,
        region,
        customer,
        order,
        Line.objects.create(tenant_id=tenant, order=order, product="tea"),
        tag,
        OrderTag.objects.create(tenant_id=tenant, order=order, tag=tag),
        Note.objects.create(order=order, text="call back"),
        Account.objects.create(owner="Ada"),
    )

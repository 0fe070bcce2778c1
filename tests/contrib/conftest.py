"""
A shop whose rows are on three shards, and who asks for them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest
from django.contrib.auth.models import User
from django.test import Client

from tests.layouts import tenant_on
from tests.shop.models import Country, Customer, Line, Note, Order, Region

SHARDS = ("shard_a", "shard_b", "shard_c")


@dataclass(frozen=True, slots=True)
class Shop:
    """On each shard one tenant, with a customer and two orders, of which the first one has a line."""

    tenants: list[int]
    regions: list[Region]
    customers: list[Customer]
    orders: list[Order]
    lines: list[Line]
    note: Note


@pytest.fixture
def shop(db: None) -> Shop:
    tenants = [tenant_on(alias) for alias in SHARDS]
    regions = [Region.objects.create(name=name) for name in ("north", "south", "west")]
    peru, _ = (Country.objects.create(code=code, name=name) for code, name in (("PE", "Peru"), ("FR", "France")))
    customers = [
        Customer.objects.create(
            tenant_id=tenant,
            name=name,
            email=email,
            joined=date(2024, month, 1),
            region=regions[month - 1] if month < 3 else None,
            country=peru,
        )
        for tenant, name, email, month in zip(
            tenants, ("Ada", "Bo", "Cy"), ("a@x.org", "b@x.org", ""), (1, 2, 3), strict=True
        )
    ]
    orders = [
        Order.objects.create(
            tenant_id=customer.tenant_id,
            customer=customer,
            status=status,
            total=Decimal(10 * number + len(status)),
            created=datetime(2023 + number, 5, 1, 12, tzinfo=UTC),
        )
        for number, customer in enumerate(customers)
        for status in ("new", "sent")
    ]
    lines = [Line.objects.create(order=order, product="tea") for order in orders[::2]]
    return Shop(tenants, regions, customers, orders, lines, Note.objects.create(order=orders[0], text="call"))


@pytest.fixture
def staff(settings, db: None) -> Client:
    settings.ROOT_URLCONF = "tests.contrib.urls"
    client = Client()
    client.force_login(User.objects.create_superuser("staff"))
    return client

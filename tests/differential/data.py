"""
The rows of the differential test: few values, so that ties, duplicates and NULLs are common, on every shard.
"""

from __future__ import annotations

import datetime
import random
from decimal import Decimal
from itertools import pairwise
from typing import Any

from tests.shop.models import Country, Currency, Customer, Line, Order, OrderTag, Region, Tag

TENANTS = (1, 2, 3, 4, 5, 6, 7, 8, 0, -3)
STATUSES = ("new", "paid", "sent", "Été", "_x")
NAMES = ("ann", "Bob", "émile", "Zoe", "")
PRODUCTS = ("pen", "ink", "Öl", "cap")
LABELS = ("red", "blue", "Red")
COUNTRIES = ("FI", "SE", "éa", "DK")
REGIONS = ("north", "Öst", "south")
CURRENCIES = ("EUR", "SEK")
MODELS = (OrderTag, Line, Order, Tag, Customer)
REFERENCE_MODELS: tuple[Any, ...] = (Country.neighbours.through, Country, Currency)
REFERENCE = "reference"


def load() -> None:
    """Write the same rows to the cluster and to the reference database."""
    rng = random.Random(20_130_101)
    countries = _countries()
    regions = [Region(pk=number, name=name) for number, name in enumerate(REGIONS, start=1)]
    save(Region, regions)
    customers = [_customer(rng, tenant, number) for tenant in TENANTS for number in range(4)]
    # Chosen apart, so that the other values are what they were.
    for customer in customers:
        chance = random.Random(f"{customer.tenant_id} {customer.email} {customer.name}")
        customer.country = chance.choice([None, *countries])
        customer.region = chance.choice([None, *regions])
    tags = [Tag(tenant_id=tenant, label=label) for tenant in TENANTS for label in LABELS]
    save(Customer, customers)
    save(Tag, tags)
    orders = [_order(rng, customer.tenant_id, customer) for customer in customers for _ in range(rng.randrange(5))]
    orders += [_order(rng, tenant, None) for tenant in TENANTS]
    save(Order, orders)
    save(Line, [_line(rng, order) for order in orders for _ in range(rng.randrange(4))])
    by_tenant = {tenant: [tag for tag in tags if tag.tenant_id == tenant] for tenant in TENANTS}
    links = [
        OrderTag(tenant_id=order.tenant_id, order=order, tag=tag)
        for order in orders
        for tag in rng.sample(by_tenant[order.tenant_id], rng.randrange(3))
    ]
    save(OrderTag, links)


def clear() -> None:
    """Delete every row that load() wrote."""
    for model in MODELS:
        model.objects.using(REFERENCE).all()._raw_delete(REFERENCE)
        for tenant in TENANTS:
            model.objects.filter(tenant_id=tenant).delete()
    for model in (*REFERENCE_MODELS, Region):
        model.objects.using(REFERENCE).all()._raw_delete(REFERENCE)
        model.objects.all().delete()


def save(model: Any, rows: list[Any]) -> None:
    # The copies keep their ids, which the cluster makes.
    model.objects.bulk_create(rows)
    model.objects.using(REFERENCE).bulk_create(rows)
    for row in rows:
        row._state.db = "default"


def _countries() -> list[Country]:
    currencies = [Currency(code=code, digits=digits) for digits, code in enumerate(CURRENCIES)]
    save(Currency, currencies)
    held = [*currencies, None, currencies[0]]
    countries = [
        Country(code=code, name=code.title(), currency=currency, rate=place)
        for place, (code, currency) in enumerate(zip(COUNTRIES, held, strict=True))
    ]
    save(Country, countries)
    link: Any = Country.neighbours.through
    pairs = list(pairwise(countries))
    save(
        link,
        [link(from_country_id=one.pk, to_country_id=other.pk) for pair in pairs for one, other in (pair, pair[::-1])],
    )
    return countries


def _customer(rng: random.Random, tenant: int, number: int) -> Customer:
    return Customer(
        tenant_id=tenant,
        name=rng.choice(NAMES),
        email=f"{number}@example.org",
        joined=rng.choice([None, datetime.date(2013, 1, 1), datetime.date(2013, 6, number + 1)]),
    )


def _order(rng: random.Random, tenant: int, customer: Customer | None) -> Order:
    moments = [None, *(datetime.datetime(2013, month, 1, 12, tzinfo=datetime.UTC) for month in (1, 2, 3))]
    return Order(
        tenant_id=tenant,
        customer=customer,
        status=rng.choice(STATUSES),
        total=Decimal(rng.randrange(-200, 1000)) / 100,
        quantity=rng.choice([None, 0, 1, 1, 2, 3, 7]),
        weight=rng.choice([None, 0.5, 0.25, 2.0, -1.0, 1e9]),
        created=rng.choice(moments),
    )


def _line(rng: random.Random, order: Order) -> Line:
    return Line(tenant_id=order.tenant_id, order=order, product=rng.choice(PRODUCTS), amount=rng.randrange(4))

"""
Rows that refer to others in other databases, on a cluster and in one plain database: what attach() and join() work on.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager

from sharding.testing import cluster
from tests.shop.models import Country, Customer, Note, Order, Region
from tests.two_sides import REFERENCE, TENANTS, clear, save

CHANGED = datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC)
#: The key of a region that does not exist.
DANGLING = 999_999


@contextmanager
def related_rows_on(owners: tuple[str, ...]) -> Iterator[None]:
    """Let the aliases own the buckets inside, with the same rows on the cluster and in the reference database."""
    with cluster.owners(*owners):
        _load()
        try:
            yield
        finally:
            clear()
            for model in (Note, Region, Country):
                model.objects.all().delete()
                model.objects.using(REFERENCE).all()._raw_delete(REFERENCE)


def _load() -> None:
    save(Region, [Region(pk=number, name=f"region {number}") for number in range(1, 6)])
    for alias in ("default", REFERENCE):
        Country.objects.using(alias).create(pk=1, code="PE", name="Peru", changed=CHANGED)
    keys = (1, 2, 3, None, DANGLING)
    customers = [
        Customer(tenant_id=tenant, name=f"c{number}", email=f"{number}@{tenant}", region_id=key, country_id=1)
        for tenant in TENANTS
        for number, key in enumerate(keys)
    ]
    save(Customer, customers)
    orders = [
        Order(tenant_id=each.tenant_id, customer=each if number % 3 else None, status="new", quantity=number % 4)
        for number, each in enumerate(customers)
    ]
    save(Order, orders)
    save(Note, [Note(pk=number + 1, order=order, text=str(number)) for number, order in enumerate(orders[::4])])

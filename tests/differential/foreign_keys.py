"""
Foreign keys of several rows at once: a customer is written where the rows are in its bucket, and refused elsewhere.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from sharding import bucket_of
from sharding.errors import BucketMismatch
from tests.differential.data import REFERENCE
from tests.shop.models import Customer, Order

REFUSED = "rows of several buckets"


def write(keys: tuple[int, ...], place: int, way: str, *, side: str) -> Any:
    """
    Give the orders of some tenants a customer, of the first one or, by bulk_update(), each of its own tenant.

    The one database would write them all: there, what the cluster refuses is not even tried.
    """
    using = REFERENCE if side == REFERENCE else "default"
    orders: QuerySet[Order] = Order.objects.using(using).filter(tenant_id__in=keys)
    customers = {key: _customer(key, place, using) for key in keys}
    if way == "bulk_update":
        return _bulk_update(orders, customers)
    tenants = set(keys) if way == "update" else set(orders.order_by().values_list("tenant_id", flat=True))
    if using == REFERENCE and len({bucket_of(key, model=Order) for key in tenants}) > 1:
        return REFUSED
    customer = customers[keys[0]]
    try:
        with transaction.atomic(using=using):
            return orders.update(customer=customer) if way == "update" else customer.orders.add(*orders)
    except BucketMismatch:
        return REFUSED


def _bulk_update(orders: QuerySet[Order], customers: dict[int, Customer]) -> int:
    found = list(orders)
    for order in found:
        order.customer = customers[order.tenant_id]
    # Our own manager looks at the instances before.
    plain: QuerySet[Order] = QuerySet(Order, using=orders.db)
    return plain.bulk_update(found, ["customer"])


def _customer(key: int, place: int, using: str) -> Customer:
    customer: Customer = Customer.objects.using(using).filter(tenant_id=key).order_by("pk")[place]
    return customer

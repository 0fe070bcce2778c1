"""
The same rows on a cluster and in one plain database, to compare their answers.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from django.db.models import Model, QuerySet

from aggregator import fan_out
from sharding.testing import cluster
from tests.shop.models import Customer, Ledger, Line, Order, OrderTag, Tag

REFERENCE = "reference"
TENANTS = range(8)
#: Those that are referred to first.
MODELS: tuple[Any, ...] = (Customer, Order, Line, Tag, OrderTag, Ledger)
#: The three kinds of cluster: one database, `default` among several, `default` owning nothing.
LAYOUTS = {
    "one": ("default",),
    "part": ("default", "shard_a", "shard_b"),
    "none": ("shard_a", "shard_b", "shard_c"),
}

Ask = Callable[[Callable[[type[Model]], QuerySet[Any]]], Any]


def cluster_side(model: type[Model]) -> QuerySet[Any]:
    return fan_out(model._default_manager)


def reference_side(model: type[Model]) -> QuerySet[Any]:
    return model._default_manager.using(REFERENCE)


def answers(ask: Ask) -> tuple[Any, Any]:
    """Return what the cluster and the reference database answer; ``ask`` is given a function: model -> queryset."""
    return plain(ask(cluster_side)), plain(ask(reference_side))


def plain(answer: Any) -> Any:
    """Return an answer as plain values: instances by their columns, querysets as lists."""
    if isinstance(answer, Model):
        return {field.attname: getattr(answer, field.attname) for field in answer._meta.concrete_fields}
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items()}
    if isinstance(answer, Iterable) and not isinstance(answer, (str, bytes)):
        return [plain(each) for each in answer]
    return answer


@contextmanager
def rows_on(owners: tuple[str, ...]) -> Iterator[None]:
    """Let the aliases own the buckets inside, with the same rows on the cluster and in the reference database."""
    with cluster.owners(*owners):
        load()
        try:
            yield
        finally:
            clear()


def load() -> None:
    customers = [
        Customer(tenant_id=tenant, name=f"{'bAécZ'[number]}{tenant}", email=f"{number}@{tenant}")
        for tenant in TENANTS
        for number in range(5)
    ]
    save(Customer, customers)
    orders = [_order(customer, number) for number, customer in enumerate(customers) if number % 4]
    orders += [_order(Customer(tenant_id=tenant), 100 + tenant, known=False) for tenant in TENANTS]
    save(Order, orders)
    lines = [
        Line(tenant_id=order.tenant_id, order=order, product=f"p{amount % 2}", amount=amount)
        for number, order in enumerate(orders)
        for amount in range(number % 4)
    ]
    save(Line, lines)
    tags = [Tag(tenant_id=tenant, label=label) for tenant in TENANTS for label in ("red", "blue")]
    save(Tag, tags)
    by_tenant = {tag.tenant_id: tag for tag in tags}
    save(OrderTag, [OrderTag(tenant_id=o.tenant_id, order=o, tag=by_tenant[o.tenant_id]) for o in orders[::3]])
    save(Ledger, [Ledger(tenant_id=tenant, number=number, text="x") for tenant in TENANTS for number in range(3)])


def clear() -> None:
    for model in reversed(MODELS):
        fan_out(model._default_manager).delete()
        reference_side(model).all()._raw_delete(REFERENCE)


def save(model: Any, rows: list[Any]) -> None:
    model.objects.bulk_create(rows)
    model.objects.using(REFERENCE).bulk_create(rows)
    for row in rows:
        row._state.db = "default"


def _order(customer: Customer, number: int, *, known: bool = True) -> Order:
    """Return an order with few different values, so that ties and NULLs are common."""
    return Order(
        tenant_id=customer.tenant_id,
        customer=customer if known else None,
        status=("new", "paid", "sent", "Été")[number % 4],
        total=Decimal(number % 7) / 4,
        quantity=None if number % 5 == 0 else number % 3,
        weight=None if number % 6 == 0 else number / 7,
        created=None if number % 8 == 0 else datetime.datetime(2013, 1, 1 + number % 9, tzinfo=datetime.UTC),
    )

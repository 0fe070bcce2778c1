"""
On a cluster of one, `default` sends what Django's own backend sends: the same statements in the same order.

`plain` is a database with the same tables and Django's own ENGINE.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from django.test.utils import CaptureQueriesContext

from sharding import bucket_of, ids
from sharding.testing.cluster import owners
from tests.blocks import savepoint
from tests.layouts import SHOP_ONLY
from tests.shop.models import Account, Customer, Device, Ledger, Line, Order, OrderTag, PaidOrder, Tag

pytestmark = pytest.mark.django_db(databases=["default", "plain"], transaction=True, available_apps=SHOP_ONLY)

TENANT = 7


@pytest.fixture(autouse=True)
def cluster_of_one(transactional_db: None) -> Iterator[None]:
    with owners("default"):
        yield


def _rows(alias: str) -> dict[str, Any]:
    customer = Customer(tenant_id=TENANT, name="Ada", email="ada@example.com")
    customer.save(using=alias)
    order = Order(tenant_id=TENANT, customer=customer)
    order.save(using=alias)
    return {"customer": customer, "order": order}


def _nested(alias: str, **rows: Any) -> None:
    with transaction.atomic(using=alias):
        Order.objects.using(alias).create(tenant_id=TENANT)
        with transaction.atomic(using=alias):
            list(Order.objects.using(alias).select_for_update().filter(tenant_id=TENANT))
        sid = savepoint(using=alias)
        Order.objects.using(alias).filter(tenant_id=TENANT).update(quantity=1)
        transaction.savepoint_rollback(sid, using=alias)
        transaction.savepoint_commit(savepoint(using=alias), using=alias)


def _empty(alias: str, **rows: Any) -> None:
    with transaction.atomic(using=alias), transaction.atomic(using=alias):
        pass


def _rolled_back(alias: str, **rows: Any) -> None:
    with transaction.atomic(using=alias):
        Order.objects.using(alias).create(tenant_id=TENANT)
        transaction.set_rollback(True, using=alias)


def _graph(alias: str, order: Order, **rows: Any) -> None:
    # With an id, so that no sequence is asked: that is this toolkit's own question.
    tag = Tag(pk=ids.pack_bigint(10_000, 0, bucket_of(TENANT, model=Tag)), tenant_id=TENANT, label="gift")
    tag.save(using=alias, force_insert=True)
    order.tags.add(tag, through_defaults={"tenant_id": TENANT})
    list(order.tags.all())
    order.tags.clear()


def _many(alias: str, **rows: Any) -> None:
    made = Order.objects.using(alias).bulk_create([Order(tenant_id=TENANT, quantity=n) for n in range(3)])
    for each in made:
        each.quantity = 5
    Order.objects.using(alias).bulk_update(made, ["quantity"])
    Order.objects.using(alias).in_bulk([made[0].pk])


OPERATIONS: dict[str, Callable[..., Any]] = {
    "filter": lambda alias, **rows: list(Order.objects.using(alias).filter(tenant_id=TENANT, status="new")),
    "get by id": lambda alias, order, **rows: Order.objects.using(alias).get(pk=order.pk),
    "save": lambda alias, order, **rows: order.save(),
    "create": lambda alias, **rows: Customer.objects.using(alias).create(tenant_id=TENANT, name="Bo"),
    "create an account": lambda alias, **rows: Account.objects.using(alias).create(owner="Bo"),
    "natural id": lambda alias, **rows: Device.objects.using(alias).create(serial="N-1").readings.create(value=1),
    "composite id": lambda alias, **rows: Ledger.objects.using(alias).create(tenant_id=TENANT, number=1).save(),
    "delete": lambda alias, order, **rows: order.delete(),
    "delete many": lambda alias, **rows: Order.objects.using(alias).filter(tenant_id=TENANT).delete(),
    "delete of two keys": lambda alias, **rows: (
        # An id of the same millisecond may sort before the first one's.
        time.sleep(0.002),
        Order(tenant_id=TENANT + 1).save(using=alias),
        Order.objects.using(alias).filter(tenant_id__in=[TENANT, TENANT + 1]).delete(),
    ),
    "delete a row on which nothing depends": lambda alias, **rows: (
        Account.objects.using(alias).create(owner="Bo").entries.create(amount=1).delete()
    ),
    "cascade": lambda alias, customer, **rows: customer.delete(),
    "update": lambda alias, **rows: (
        Order.objects.using(alias).filter(tenant_id=TENANT).update(quantity=F("quantity") + 1)
    ),
    "update over a join": lambda alias, **rows: (
        Line.objects.using(alias).filter(tenant_id=TENANT, order__status="new").update(amount=2)
    ),
    "refresh": lambda alias, order, **rows: order.refresh_from_db(),
    "validate": lambda alias, customer, **rows: customer.full_clean(exclude=["joined"]),
    "get_or_create": lambda alias, **rows: Customer.objects.using(alias).get_or_create(
        tenant_id=TENANT, email="new@example.com"
    ),
    "update_or_create": lambda alias, **rows: Customer.objects.using(alias).update_or_create(
        tenant_id=TENANT, email="ada@example.com", defaults={"name": "E"}
    ),
    "related": lambda alias, customer, **rows: (
        customer.orders.create(tenant_id=TENANT),
        list(customer.orders.filter(status="new")),
        customer.orders.count(),
    ),
    "many to many": _graph,
    "select_related": lambda alias, **rows: list(
        Order.objects.using(alias).filter(tenant_id=TENANT).select_related("customer")
    ),
    "prefetch_related": lambda alias, **rows: list(
        Customer.objects.using(alias).filter(tenant_id=TENANT).prefetch_related("orders__lines")
    ),
    "aggregate": lambda alias, **rows: (
        Order.objects.using(alias).filter(tenant_id=TENANT).aggregate(n=Count("id"), total=Sum("total"))
    ),
    "aggregate over a slice": lambda alias, **rows: (
        Order.objects.using(alias).filter(tenant_id=TENANT).order_by("pk")[:5].aggregate(n=Count("id"))
    ),
    "group": lambda alias, **rows: list(
        Order.objects.using(alias).filter(tenant_id=TENANT).values("status").annotate(n=Count("lines"))
    ),
    "subquery": lambda alias, **rows: list(
        Customer.objects.using(alias).filter(
            Exists(Order.objects.filter(customer=OuterRef("pk"), status="new")), tenant_id=TENANT
        )
    ),
    "exclude over a relation": lambda alias, **rows: list(
        Customer.objects.using(alias).filter(tenant_id=TENANT).exclude(orders__status="paid")
    ),
    "or": lambda alias, **rows: (
        Order.objects.using(alias).filter(Q(status="new") | Q(quantity=1), tenant_id=TENANT).exists()
    ),
    "union": lambda alias, **rows: list(
        Order.objects.using(alias)
        .filter(tenant_id=TENANT, status="a")
        .union(Order.objects.using(alias).filter(tenant_id=TENANT, status="b"))
    ),
    "nothing": lambda alias, **rows: list(Order.objects.using(alias).filter(tenant_id__in=[])),
    "proxy": lambda alias, **rows: list(PaidOrder.objects.using(alias).filter(tenant_id=TENANT)),
    "bulk": _many,
    "nested blocks": _nested,
    "a block that is rolled back": _rolled_back,
    "an empty block": _empty,
    "iterator": lambda alias, **rows: list(Order.objects.using(alias).filter(tenant_id=TENANT).iterator(10)),
    "a cascade over taggings": lambda alias, **rows: OrderTag.objects.using(alias).filter(tenant_id=TENANT).delete(),
}


@contextmanager
def _captured(alias: str) -> Iterator[list[str]]:
    sent: list[str] = []
    with CaptureQueriesContext(connections[alias]) as context:
        yield sent
    sent += [_general(query["sql"]) for query in context.captured_queries]


def _general(sql: str) -> str:
    """Make ids, names of savepoints and cursors equal, and the bucket of a row that is its own key."""
    sql = re.sub(r"[0-9a-f]{8}-?([0-9a-f]{4}-?){3}[0-9a-f]{12}", "<uuid>", sql)
    sql = re.sub(r"VALUES \(\d+, '<uuid>'", "VALUES (<bucket>, '<uuid>'", sql)
    sql = re.sub(r'"s\d+_x\d+"', '"<savepoint>"', sql)
    return re.sub(r"_django_curs_\w+", "<cursor>", sql)


@pytest.mark.parametrize("name", OPERATIONS)
def test_same_statements(name: str) -> None:
    sent: dict[str, list[str]] = {}
    for alias in ("plain", "default"):
        rows = _rows(alias)
        with _captured(alias) as sent[alias]:
            OPERATIONS[name](alias, **rows)
    assert sent["default"] == sent["plain"]
    assert sent["plain"] or name == "nothing"

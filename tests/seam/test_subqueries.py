"""
Joins and subqueries that stay inside one bucket are answered; all others are refused by name, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Case, Count, Exists, F, OuterRef, Q, QuerySet, Subquery, Value, When, Window
from django.db.models.functions import Coalesce, RowNumber

from sharding.errors import CannotMerge, GlobalJoin
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Account, Customer, Device, Entry, Line, Note, Order, Reading, Region

pytestmark = [pytest.mark.usefixtures("three_shards"), pytest.mark.django_db(databases=CLUSTER)]

Query = Callable[[int], QuerySet[Any]]


def customers(t: int) -> QuerySet[Customer]:
    return Customer.objects.filter(tenant_id=t)


def orders(t: int) -> QuerySet[Order]:
    return Order.objects.filter(tenant_id=t)


LOCAL: dict[str, Query] = {
    "subquery of the same key": lambda t: customers(t).filter(pk__in=orders(t).values("customer")),
    "exists, by a foreign key": lambda t: customers(t).filter(Exists(Order.objects.filter(customer=OuterRef("pk")))),
    "not exists": lambda t: customers(t).exclude(~Exists(Order.objects.filter(customer=OuterRef("pk")))),
    "exists, by the key": lambda t: customers(t).filter(Exists(Order.objects.filter(tenant_id=OuterRef("tenant_id")))),
    "exists, two levels": lambda t: customers(t).filter(
        Exists(
            Order.objects.filter(
                Exists(Line.objects.filter(order=OuterRef("pk"), product="tea")), customer=OuterRef("pk")
            )
        )
    ),
    "annotated subquery": lambda t: customers(t).annotate(
        last=Subquery(Order.objects.filter(customer=OuterRef("pk")).order_by("-created").values("status")[:1])
    ),
    "counted subquery": lambda t: customers(t).annotate(
        n=Coalesce(
            Subquery(
                Order.objects.filter(customer=OuterRef("pk")).values("customer").annotate(n=Count("pk")).values("n")
            ),
            0,
        )
    ),
    "case": lambda t: customers(t).annotate(
        x=Case(When(Exists(Order.objects.filter(customer=OuterRef("pk"))), then=Value(1)), default=Value(0))
    ),
    "ordered by a subquery": lambda t: customers(t).order_by(
        Subquery(Order.objects.filter(customer=OuterRef("pk")).values("status")[:1])
    ),
    "empty subquery": lambda t: customers(t).exclude(pk__in=Order.objects.none().values("customer")),
    "exclude over a reverse relation": lambda t: customers(t).exclude(orders__status="paid"),
    "exclude over two relations": lambda t: customers(t).exclude(orders__lines__product="milk"),
    "exclude over a through table": lambda t: customers(t).exclude(orders__tags__label="x"),
    "join forward": lambda t: customers(t).filter(orders__customer__name="Ada"),
    "join back": lambda t: customers(t).filter(orders__lines__product="tea").distinct(),
    "aggregate over a join": lambda t: customers(t).annotate(n=Count("orders__lines")).filter(n__gte=1),
    "select_related": lambda t: customers(t),
    "union": lambda t: customers(t).filter(name="Ada").union(customers(t).filter(name="Bo")),
    "intersection": lambda t: customers(t).intersection(customers(t)),
    "window": lambda t: customers(t).annotate(n=Window(RowNumber(), order_by=F("name").asc())),
    "foreign key without a join": lambda t: customers(t).filter(region__isnull=True),
    "ordered by a foreign key": lambda t: customers(t).order_by("region_id"),
}


@pytest.mark.parametrize("query", LOCAL.values(), ids=LOCAL)
def test_answered_inside_one_bucket(query: Query) -> None:
    tenant = tenant_on("shard_a")
    customer = Customer.objects.create(tenant_id=tenant, name="Ada")
    order = Order.objects.create(tenant_id=tenant, customer=customer)
    Line.objects.create(tenant_id=tenant, order=order, product="tea")
    with assert_statements({"shard_a": 1}), assert_no_fan_out():
        assert list(query(tenant)) == [customer]


def test_correlated_by_other_keys() -> None:
    account = Account.objects.create(owner="Bo")
    entry = Entry.objects.create(account=account)
    device = Device.objects.create(serial="N-1")
    Reading.objects.create(device=device, value=1)
    with assert_no_fan_out():
        rich = Account.objects.filter(Exists(Entry.objects.filter(account=OuterRef("pk"))), pk=account.pk)
        assert list(rich) == [account]
        mine = Entry.objects.filter(pk=entry.pk, account__in=Account.objects.filter(pk=account.pk))
        assert list(mine) == [entry]
        assert not Device.objects.filter(serial="N-1").exclude(readings__value=1).exists()


JOIN = "Ask for the related rows in a query of their own (for example by prefetch_related())."


def join_message(label: str, table: str) -> str:
    return f"This {label} query joins {table!r}, and sharded and global tables live on different servers. {JOIN}"


def subquery_message(outer: str, inner: str) -> str:
    return (
        f"This {outer} query cannot be answered inside one bucket because of the subquery over {inner}. Limit both "
        f"queries to the same shard key, correlate them by it (OuterRef), or evaluate the inner one first: list(inner)."
    )


NESTED = (
    "A query that the control database answers contains a subquery over shop.Order, and sharded rows live on other "
    "servers. Evaluate the inner query first: list(inner)."
)
UNION = (
    "This shop.Order query cannot be answered inside one bucket because of union(). "
    "Limit every part to shard keys, or ask every shard with aggregator.fan_out()."
)

REFUSED: dict[str, tuple[Query, type[Exception], str]] = {
    "subquery of another key": (
        lambda t: customers(t).filter(pk__in=orders(t + 1).values("customer")),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "subquery of no key": (
        lambda t: customers(t).filter(name__in=Order.objects.values("status")),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "excluded subquery of no key": (
        lambda t: customers(t).exclude(name__in=Order.objects.values("status")),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "scalar subquery of no key": (
        lambda t: customers(t).filter(name=Order.objects.values("status")[:1]),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "annotated subquery of no key": (
        lambda t: customers(t).annotate(x=Subquery(Order.objects.values("status")[:1])),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "exists, correlated by another column": (
        lambda t: customers(t).filter(Exists(Order.objects.filter(status=OuterRef("name")))),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "exists, correlated under OR": (
        lambda t: customers(t).filter(
            Exists(Order.objects.filter(Q(customer=OuterRef("pk")) | Q(status=OuterRef("name"))))
        ),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "exists, negated correlation": (
        lambda t: customers(t).filter(Exists(Order.objects.exclude(customer=OuterRef("pk")))),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "exists, a key of another kind": (
        lambda t: customers(t).filter(Exists(Device.objects.filter(serial=OuterRef("name")))),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Device"),
    ),
    "a foreign subquery inside a correlated one": (
        lambda t: customers(t).filter(
            Exists(Order.objects.filter(customer=OuterRef("pk"), status__in=Line.objects.values("product")))
        ),
        CannotMerge,
        subquery_message("shop.Order", "shop.Line"),
    ),
    "ordered by a foreign subquery": (
        lambda t: customers(t).order_by(Subquery(Order.objects.values("status")[:1])),
        CannotMerge,
        subquery_message("shop.Customer", "shop.Order"),
    ),
    "subquery over a global model": (
        lambda t: customers(t).filter(region__in=Region.objects.filter(name="north")),
        GlobalJoin,
        join_message("shop.Customer", "shop_region"),
    ),
    "exists over a global model": (
        lambda t: orders(t).filter(Exists(Note.objects.filter(order=OuterRef("pk")))),
        GlobalJoin,
        join_message("shop.Order", "shop_note"),
    ),
    "exclude over a global model": (
        lambda t: orders(t).exclude(notes__text="x"),
        GlobalJoin,
        join_message("shop.Order", "shop_note"),
    ),
    "subquery in a global model": (
        lambda t: Note.objects.filter(order__in=orders(t)),
        GlobalJoin,
        NESTED,
    ),
    "exists in a global model": (
        lambda t: Note.objects.annotate(x=Exists(Order.objects.filter(pk=OuterRef("order")))),
        GlobalJoin,
        NESTED,
    ),
    "union with all keys": (lambda t: orders(t).union(Order.objects.all()), CannotMerge, UNION),
    "union with a global model": (
        lambda t: orders(t).values("status").union(Region.objects.values("name")),
        GlobalJoin,
        join_message("shop.Order", "shop_region"),
    ),
    "extra tables": (
        lambda t: orders(t).extra(tables=["shop_region"]),
        CannotMerge,
        "This shop.Order query cannot be answered inside one bucket because of extra(tables=…). "
        "Query the models of those tables instead.",
    ),
}


@pytest.mark.parametrize(("query", "error", "message"), REFUSED.values(), ids=REFUSED)
def test_refused(query: Query, error: type[Exception], message: str) -> None:
    with assert_statements({}), pytest.raises(error, match=whole(message)):
        list(query(tenant_on("shard_a")))

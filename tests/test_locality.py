"""
Joins and subqueries that hide where a WHERE clause is not: refused where the bucket lives elsewhere, and, since buckets
move, in a cluster of one as well. What they look like in plain sight is in tests/seam/test_subqueries.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models import CharField, Count, Exists, FilteredRelation, Max, OuterRef, Q, QuerySet, Subquery, Window
from django.db.models.functions import Cast, RowNumber
from django.db.models.lookups import Exact

from sharding.errors import CannotMerge, GlobalJoin
from sharding.testing.cluster import owners
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, LAYOUTS, Layout, tenant_on
from tests.messages import whole
from tests.shop.models import Customer, Device, Ledger, Line, Note, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

Query = Callable[[int], object]


@pytest.fixture(scope="module", params=[LAYOUTS[0], LAYOUTS[3]], ids=str)
def layout(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker) -> Iterator[Layout]:
    with django_db_blocker.unblock(), owners(*request.param.owners):
        yield request.param


def customers(t: int) -> QuerySet[Customer]:
    return Customer.objects.filter(tenant_id=t)


def orders(t: int) -> QuerySet[Order]:
    return Order.objects.filter(tenant_id=t)


def others(t: int) -> QuerySet[Any]:
    return orders(t + 1).values("status")


def by_region(rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows.order_by("customer__region__name")


def _subquery(outer: str, inner: str = "shop.Order") -> str:
    return (
        f"This {outer} query cannot be answered inside one bucket because of the subquery over {inner}. Limit both "
        f"queries to the same shard key, correlate them by it (OuterRef), or evaluate the inner one first: list(inner)."
    )


#: Subqueries over another tenant's rows.
ELSEWHERE: dict[str, tuple[Query, str]] = {
    "an aggregate's filter": (
        lambda t: orders(t).aggregate(n=Count("pk", filter=Q(status__in=others(t)))),
        "shop.Order",
    ),
    "an aggregate's filter, over a slice": (
        lambda t: orders(t).order_by("pk")[:5].aggregate(n=Count("pk", filter=Q(status__in=others(t)))),
        "shop.Order",
    ),
    "an aggregate, over distinct rows": (
        lambda t: orders(t).distinct().aggregate(n=Max(Subquery(others(t)[:1]))),
        "shop.Order",
    ),
    "a filtered relation": (
        lambda t: list(
            customers(t)
            .annotate(mine=FilteredRelation("orders", condition=Q(orders__status__in=Subquery(others(t)))))
            .filter(mine__status="new")
        ),
        "shop.Customer",
    ),
    "a filtered relation's exists": (
        lambda t: list(
            customers(t)
            .annotate(mine=FilteredRelation("orders", condition=Q(Exists(others(t)))))
            .filter(mine__status="new")
        ),
        "shop.Customer",
    ),
    "a window": (
        lambda t: list(orders(t).annotate(n=Window(RowNumber(), order_by=Subquery(others(t)[:1])))),
        "shop.Order",
    ),
    "values": (lambda t: list(orders(t).values(x=Subquery(others(t)[:1]))), "shop.Order"),
    "values_list": (lambda t: list(orders(t).values_list(Subquery(others(t)[:1]))), "shop.Order"),
    "groups": (lambda t: list(orders(t).values(x=Subquery(others(t)[:1])).annotate(n=Count("pk"))), "shop.Order"),
    "an end of a range": (lambda t: list(orders(t).filter(status__range=("a", Subquery(others(t)[:1])))), "shop.Order"),
    "an element of a list": (
        lambda t: list(orders(t).filter(status__in=["new", Subquery(others(t)[:1])])),
        "shop.Order",
    ),
    "a union inside": (
        lambda t: list(
            customers(t).filter(pk__in=orders(t).values("customer").union(orders(t + 1).values("customer")))
        ),
        "shop.Customer",
    ),
    "a union of which one part is correlated": (
        lambda t: list(
            customers(t).filter(
                Exists(Order.objects.filter(customer=OuterRef("pk")).values("pk").union(orders(t + 1).values("pk")))
            )
        ),
        "shop.Customer",
    ),
    "a union of which one part of several tenants is correlated": (
        lambda t: list(
            Customer.objects.filter(tenant_id__in=[t, t + 1]).filter(
                Exists(Order.objects.filter(customer=OuterRef("pk")).values("pk").union(Order.objects.values("pk")))
            )
        ),
        "shop.Customer",
    ),
    "the outer row's key beside a value": (
        lambda t: list(customers(t).filter(Exists(Order.objects.filter(Exact(OuterRef("tenant_id"), t))))),
        "shop.Customer",
    ),
    "the key itself": (
        lambda t: list(Order.objects.filter(tenant_id=Subquery(orders(t).values("tenant_id")[:1]))),
        "shop.Order",
    ),
    "a key in another type": (
        lambda t: list(
            customers(t).filter(Exists(Order.objects.filter(status=Cast(OuterRef("tenant_id"), CharField()))))
        ),
        "shop.Customer",
    ),
    "existence": (lambda t: orders(t).filter(Exists(others(t))).exists(), "shop.Order"),
    "an update": (lambda t: orders(t).filter(Exists(others(t))).update(status="x"), "shop.Order"),
    "a delete": (lambda t: Line.objects.filter(Exists(others(t)), tenant_id=t).delete(), "shop.Line"),
}


@pytest.mark.parametrize(("query", "label"), ELSEWHERE.values(), ids=ELSEWHERE)
def test_subqueries_over_other_rows(query: Query, label: str, layout: Layout, db: None) -> None:
    with assert_statements({}), pytest.raises(CannotMerge, match=whole(_subquery(label))):
        query(tenant_on(layout.home))


def test_a_number_is_no_text(layout: Layout, db: None) -> None:
    """SQLite compares 42 with '42' as equal, and they are in different buckets."""
    devices = Device.objects.filter(serial=OuterRef("tenant_id"))
    message = _subquery("shop.Customer", "shop.Device")
    with assert_statements({}), pytest.raises(CannotMerge, match=whole(message)):
        list(customers(tenant_on(layout.home)).filter(Exists(devices)))


def test_composite_ids(layout: Layout, db: None) -> None:
    tenant = tenant_on(layout.home)
    Ledger.objects.create(tenant_id=tenant, number=1)
    rows = Ledger.objects.filter(tenant_id=tenant)
    with assert_statements(layout.expect(home=1)), assert_no_fan_out():
        assert rows.filter(pk__in=rows.values("pk")).count() == 1
    message = _subquery("shop.Ledger", "shop.Ledger")
    with assert_statements({}), pytest.raises(CannotMerge, match=whole(message)):
        list(rows.filter(pk__in=Ledger.objects.filter(tenant_id=tenant + 1).values("pk")))


@pytest.mark.parametrize("name", ["pk", "pk__in"])
def test_subqueries_inside_composite_ids(name: str, layout: Layout, db: None) -> None:
    tenant = tenant_on(layout.home)
    row = (tenant, Subquery(orders(tenant + 1).values("quantity")[:1]))
    with assert_statements({}), pytest.raises(CannotMerge, match=whole(_subquery("shop.Ledger"))):
        list(Ledger.objects.filter(**{name: row if name == "pk" else [row, (tenant, 2)]}))
    Ledger.objects.create(tenant_id=tenant, number=1)
    Order.objects.create(tenant_id=tenant, quantity=1)
    row = (tenant, Subquery(orders(tenant).values("quantity")[:1]))
    assert Ledger.objects.get(**{name: row if name == "pk" else [row]}).number == 1


#: Joins that Django makes while it compiles, and (query, label, table) of a statement over both servers.
GLOBAL: dict[str, tuple[Query, str, str]] = {
    "a subquery's order": (
        lambda t: list(customers(t).filter(pk__in=by_region(orders(t)).values("customer")[:1])),
        "shop.Order",
        "shop_region",
    ),
    "an annotated subquery's order": (
        lambda t: list(
            customers(t).annotate(
                x=Subquery(by_region(Order.objects.filter(customer=OuterRef("pk"))).values("status")[:1])
            )
        ),
        "shop.Order",
        "shop_region",
    ),
    "distinct on": (
        lambda t: list(by_region(orders(t)).values("customer__region__name").distinct()),
        "shop.Order",
        "shop_region",
    ),
    "a relation of a relation": (
        lambda t: list(orders(t).select_related("customer__region")),
        "shop.Order",
        "shop_region",
    ),
    "a filtered relation": (
        lambda t: list(
            orders(t).annotate(mine=FilteredRelation("notes", condition=Q(notes__text="x"))).filter(mine__text="y")
        ),
        "shop.Order",
        "shop_note",
    ),
    "a counted relation of global rows": (
        lambda t: list(Region.objects.annotate(n=Count("customers"))),
        "shop.Region",
        "shop_customer",
    ),
    "a missing relation of global rows": (
        lambda t: Region.objects.filter(customers__isnull=True).exists(),
        "shop.Region",
        "shop_customer",
    ),
    "an aggregate of global rows": (
        lambda t: Note.objects.aggregate(n=Count("order__status")),
        "shop.Note",
        "shop_order",
    ),
    "a union of global rows": (
        lambda t: list(Note.objects.values("text").union(orders(t).values("status"))),
        "shop.Note",
        "shop_order",
    ),
    "a counted union of global rows": (
        lambda t: Note.objects.values("text").union(orders(t).values("status")).count(),
        "shop.Note",
        "shop_order",
    ),
}


@pytest.mark.parametrize(("query", "label", "table"), GLOBAL.values(), ids=GLOBAL)
def test_joins_between_servers(query: Query, label: str, table: str, layout: Layout, db: None) -> None:
    message = (
        f"This {label} query joins {table!r}, and sharded and global tables live on different servers. "
        f"Ask for the related rows in a query of their own (for example by prefetch_related())."
    )
    with assert_statements({}), pytest.raises(GlobalJoin, match=whole(message)):
        query(tenant_on(layout.home))


def test_new_global_row_from_a_subquery(layout: Layout, db: None) -> None:
    message = (
        "A query that the control database answers contains a subquery over shop.Order, and sharded rows live on "
        "other servers. Evaluate the inner query first: list(inner)."
    )
    text = Subquery(others(tenant_on(layout.home))[:1])
    with assert_statements({}), pytest.raises(GlobalJoin, match=whole(message)):
        Note.objects.create(text=text)


def test_the_id_of_a_sharded_row_needs_no_join(layout: Layout, db: None) -> None:
    with assert_statements({"default": 1}):
        assert Note.objects.aggregate(n=Count("order__pk")) == {"n": 0}

"""
Subqueries in what is written: they are refused when their rows may lie elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.db.models import OuterRef, Subquery

from sharding.errors import CannotMerge, GlobalJoin
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.seam.test_subqueries import NESTED, customers, join_message, orders, subquery_message
from tests.shop.models import Customer, Line, Note, Order, Region, Tag

pytestmark = [pytest.mark.usefixtures("three_shards"), pytest.mark.django_db(databases=CLUSTER)]


WRITES: dict[str, tuple[Callable[[int], object], type[Exception], str]] = {
    "update by a subquery of another key": (
        lambda t: orders(t).update(status=Subquery(orders(t + 1).values("status")[:1])),
        CannotMerge,
        subquery_message("shop.Order", "shop.Order"),
    ),
    "update by a subquery over a global model": (
        lambda t: orders(t).update(status=Subquery(Region.objects.values("name")[:1])),
        GlobalJoin,
        join_message("shop.Order", "shop_region"),
    ),
    "update of rows that a foreign subquery names": (
        lambda t: orders(t).filter(customer__in=customers(t + 1)).update(status="x"),
        CannotMerge,
        subquery_message("shop.Order", "shop.Customer"),
    ),
    "delete of rows that a foreign subquery names": (
        lambda t: Line.objects.filter(tenant_id=t, product__in=orders(t + 1).values("status")).delete(),
        CannotMerge,
        subquery_message("shop.Line", "shop.Order"),
    ),
    "create from a subquery": (
        lambda t: Order.objects.create(tenant_id=t, status=Subquery(orders(t + 1).values("status")[:1])),
        CannotMerge,
        subquery_message("shop.Order", "shop.Order"),
    ),
    "update of a global model by a subquery": (
        lambda t: Note.objects.update(text=Subquery(orders(t).values("status")[:1])),
        GlobalJoin,
        NESTED,
    ),
    "delete of a global model by a join": (
        lambda t: Note.objects.filter(order__status="x").delete(),
        GlobalJoin,
        join_message("shop.Note", "shop_order"),
    ),
    "update of a global model by a join": (
        lambda t: Note.objects.filter(order__status="x").update(text="x"),
        GlobalJoin,
        join_message("shop.Note", "shop_order"),
    ),
}


@pytest.mark.parametrize(("write", "error", "message"), WRITES.values(), ids=WRITES)
def test_refused_writes(write: Callable[[int], object], error: type[Exception], message: str) -> None:
    # The map may have to be read for it.
    tenant = tenant_on("shard_a")
    with assert_statements({}), pytest.raises(error, match=whole(message)):
        write(tenant)


def test_updates_by_subqueries_of_the_same_rows() -> None:
    tenant = tenant_on("shard_a")
    customer = Customer.objects.create(tenant_id=tenant, name="Ada")
    order = Order.objects.create(tenant_id=tenant, customer=customer)
    tag = Tag.objects.create(tenant_id=tenant, label="gift")
    with assert_statements({"shard_a": 1}):
        name = Customer.objects.filter(pk=OuterRef("customer")).values("name")[:1]
        assert orders(tenant).update(status=Subquery(name)) == 1
    with assert_statements({"shard_a": 1}):
        assert orders(tenant).update(status=Subquery(Tag.objects.filter(pk=tag.pk).values("label")[:1])) == 1
    order.refresh_from_db()
    assert order.status == "gift"

"""
Every public method of QuerySet, and its asynchronous twin, on a queryset that names one shard key.

What is asserted is how many statements each database was sent, on every layout.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import models
from django.db.models import Count, F, Max, Q, QuerySet, Sum

from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, Layout
from tests.seam.conftest import Shop
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)

Arguments = Callable[[Shop], tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Case:
    """A method, its arguments, and how many statements go to the tenant's shard and to `default`."""

    method: str
    arguments: Arguments = lambda shop: ()
    named: Callable[[Shop], dict[str, Any]] = lambda shop: {}
    home: int = 1
    default: int = 0
    check: Callable[[Any, Shop], bool] = lambda result, shop: result == [shop.order]

    def __str__(self) -> str:
        return self.method


def _order(shop: Shop, **values: Any) -> Order:
    return Order(tenant_id=shop.tenant, **values)


def _changed(shop: Shop) -> Order:
    shop.order.status = "sent"
    return shop.order


def _mine(shop: Shop) -> QuerySet[Order]:
    return Order.objects.filter(tenant_id=shop.tenant)


def _is(expected: Any) -> Callable[[Any, Shop], bool]:
    return lambda result, shop: result == expected


def _is_order(result: Any, shop: Shop) -> bool:
    return result == shop.order


#: Answers at once, or writes.
IMMEDIATE = [
    Case("aggregate", named=lambda shop: {"n": Count("id")}, check=_is({"n": 1})),
    Case("bulk_create", lambda shop: ([_order(shop), _order(shop)],), check=lambda made, shop: all(o.pk for o in made)),
    Case("bulk_update", lambda shop: ([_changed(shop)], ["status"]), check=_is(1)),
    Case("contains", lambda shop: (shop.order,), check=_is(True)),
    Case("count", check=_is(1)),
    Case("create", named=lambda shop: {"tenant_id": shop.tenant}, check=lambda made, shop: made._state.db == "default"),
    # The order itself, its lines and taggings lie at home, its notes are global.
    Case("delete", home=4, default=1, check=lambda result, shop: result[0] == 4),
    Case("earliest", lambda shop: ("created",), check=_is_order),
    Case("exists", check=_is(True)),
    Case("explain", check=lambda plan, shop: "order" in plan.lower() or "scan" in plan.lower()),
    Case("first", check=_is_order),
    Case("get", named=lambda shop: {"pk": shop.order.pk}, check=_is_order),
    Case("get_or_create", named=lambda shop: {"status": "new"}, check=lambda got, shop: got == (shop.order, False)),
    Case("in_bulk", lambda shop: ([shop.order.pk],), check=lambda got, shop: got == {shop.order.pk: shop.order}),
    Case("iterator", check=lambda rows, shop: rows == [shop.order]),
    Case("last", check=_is_order),
    Case("latest", lambda shop: ("created",), check=_is_order),
    Case("update", named=lambda shop: {"quantity": F("quantity") + 1}, check=_is(1)),
    Case(
        "update_or_create",
        named=lambda shop: {"status": "new", "defaults": {"quantity": 9}},
        home=2,
        check=lambda got, shop: got == (shop.order, False),
    ),
]

#: Gives another queryset, which is then evaluated.
LAZY = [
    Case("alias", named=lambda shop: {"n": Count("lines")}),
    Case("all"),
    Case("annotate", named=lambda shop: {"n": Count("lines")}, check=lambda rows, shop: rows[0].n == 1),
    Case("complex_filter", lambda shop: (Q(status="new"),)),
    Case("dates", lambda shop: ("created", "year"), check=_is([])),
    Case("datetimes", lambda shop: ("created", "year"), check=_is([])),
    Case("defer", lambda shop: ("weight",)),
    Case("difference", lambda shop: (_mine(shop).filter(status="old"),)),
    Case("distinct"),
    Case("exclude", named=lambda shop: {"status": "old"}),
    Case("extra", named=lambda shop: {"select": {"one": "1"}}, check=lambda rows, shop: rows[0].one == 1),
    Case("filter", named=lambda shop: {"status": "new"}),
    Case("intersection", lambda shop: (_mine(shop).filter(status="new"),)),
    Case("none", home=0, check=_is([])),
    Case("only", lambda shop: ("status", "tenant_id")),
    Case("order_by", lambda shop: ("-created",)),
    Case("prefetch_related", lambda shop: ("lines", "notes"), home=2, default=1),
    Case("reverse"),
    Case("select_for_update"),
    Case("select_related", lambda shop: ("customer",), check=lambda rows, shop: rows[0].customer.name == "Ada"),
    Case("union", lambda shop: (_mine(shop).filter(status="old"),)),
    Case("using", lambda shop: ("default",)),
    Case("values", lambda shop: ("status",), check=_is([{"status": "new"}])),
    Case("values_list", lambda shop: ("status",), check=_is([("new",)])),
]
if hasattr(models, "FETCH_PEERS"):
    LAZY.append(Case("fetch_mode", lambda shop: (models.FETCH_PEERS,)))

#: Tested by name below, or attributes that ask no database.
ELSEWHERE = {"raw", "as_manager", "resolve_expression", "db", "ordered", "query", "totally_ordered"}


def _public(cls: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(cls) if not name.startswith("_")}


def test_every_public_name_is_listed() -> None:
    public = _public(QuerySet)
    listed = {case.method for case in IMMEDIATE + LAZY}
    twins = {f"a{case.method}" for case in IMMEDIATE}
    assert listed | twins | ELSEWHERE == public | ({"totally_ordered"} - public)


def _evaluated(result: Any) -> Any:
    return list(result) if isinstance(result, QuerySet) or inspect.isgenerator(result) else result


@pytest.mark.parametrize("case", IMMEDIATE + LAZY, ids=str)
def test_method(case: Case, layout: Layout, shop: Shop) -> None:
    mine = _mine(shop)
    arguments, named = case.arguments(shop), case.named(shop)
    with assert_statements(layout.expect(home=case.home, default=case.default)), assert_no_fan_out():
        result = _evaluated(getattr(mine, case.method)(*arguments, **named))
    assert case.check(result, shop)


@pytest.mark.parametrize("case", IMMEDIATE, ids=lambda case: f"a{case}")
def test_asynchronous_twin(case: Case, layout: Layout, shop: Shop) -> None:
    mine = _mine(shop)
    arguments, named = case.arguments(shop), case.named(shop)

    async def run() -> Any:
        twin = getattr(mine, f"a{case.method}")(*arguments, **named)
        return [row async for row in twin] if case.method == "iterator" else await twin

    with assert_statements(layout.expect(home=case.home, default=case.default)), assert_no_fan_out():
        result = async_to_sync(run)()
    assert case.check(result, shop)


def test_asynchronous_iteration(layout: Layout, shop: Shop) -> None:
    async def run() -> list[Order]:
        return [row async for row in _mine(shop)]

    with assert_statements(layout.expect(home=1)):
        assert async_to_sync(run)() == [shop.order]


def test_creating_get_or_create_and_update_or_create(layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(home=2)):
        made, created = _mine(shop).get_or_create(tenant_id=shop.tenant, status="paid")
    assert created
    with assert_statements(layout.expect(home=2)):
        also, created = Order.objects.update_or_create(tenant_id=shop.tenant, status="sent", defaults={"quantity": 4})
    assert created
    assert set(_mine(shop)) == {shop.order, made, also}


def test_slices(layout: Layout, shop: Shop) -> None:
    rows = _mine(shop).order_by("pk")
    with assert_statements(layout.expect(home=3)):
        assert rows[0] == shop.order
        assert list(rows[:5]) == [shop.order]
        assert list(rows[1:2]) == []


def test_length_truth_and_membership_load_once(layout: Layout, shop: Shop) -> None:
    rows = _mine(shop)
    with assert_statements(layout.expect(home=1)):
        assert len(rows) == 1
        assert bool(rows)
        assert shop.order in rows


def test_raw_on_the_shard(layout: Layout, shop: Shop) -> None:
    sql = "SELECT * FROM shop_order WHERE tenant_id = %s /* control database only */"
    with assert_statements(layout.expect(home=1)):
        (found,) = Order.objects.using(layout.home).raw(sql, [shop.tenant])
    assert found == shop.order
    with assert_statements(layout.expect(home=1)):
        found.refresh_from_db()


def test_as_manager(layout: Layout, shop: Shop) -> None:
    manager = QuerySet.as_manager()
    manager.model = Order
    with assert_statements(layout.expect(home=1)):
        assert list(manager.filter(tenant_id=shop.tenant)) == [shop.order]


def test_queryset_as_an_expression(layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(home=1)):
        assert list(_mine(shop).filter(pk__in=_mine(shop).values("pk"))) == [shop.order]


def test_annotating_an_aggregate(layout: Layout, shop: Shop) -> None:
    with assert_statements(layout.expect(home=1)):
        assert list(_mine(shop).values("status").annotate(most=Max("quantity"))) == [{"status": "new", "most": 3}]


def test_aggregates_of_rows_that_cannot_be(layout: Layout, shop: Shop) -> None:
    """Their number is known; what else the database would answer has a type of its own."""
    nothing = Order.objects.filter(tenant_id=shop.tenant).filter(tenant_id=shop.neighbour)
    with assert_statements({}):
        assert nothing.count() == 0
        assert nothing.aggregate(n=Count("pk")) == {"n": 0}
    for rows in (nothing, nothing.distinct(), nothing.order_by("pk")[:3]):
        found = rows.aggregate(total=Sum("total", default=0), n=Count("pk"))
        assert (found, type(found["total"])) == ({"total": 0, "n": 0}, Decimal)

"""
Statements that name the keys of several tenants: each shard that owns one of them is asked, and no other.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Q, Sum, prefetch_related_objects

from sharding.errors import CrossShardQuery, ShardKeyMissing
from sharding.testing.statements import assert_statements, fan_outs
from tests.fan_out import no_aggregator
from tests.layouts import CLUSTER, Layout, tenants_on
from tests.messages import whole
from tests.seam.conftest import Shop
from tests.shop.models import Customer, Line, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def pair(layout: Layout, shop: Shop) -> list[Order]:
    """Orders of two tenants: the shop's, and another one's on another shard if there is one."""
    others = (
        tenant for tenant in tenants_on(layout.away or layout.home) if tenant not in {shop.tenant, shop.neighbour}
    )
    tenant = next(others)
    customer = Customer.objects.create(tenant_id=tenant, name="Zoe", region=shop.region)
    there = Order.objects.create(tenant_id=tenant, customer=customer, quantity=4)
    Line.objects.create(tenant_id=tenant, order=there, product="pen")
    return [shop.order, there]


def _ids(pair: list[Order]) -> list[Any]:
    return [order.pk for order in pair]


def _tenants(pair: list[Order]) -> list[int]:
    return [order.tenant_id for order in pair]


#: What is asked, its answer, and the statements for each of the two shards.
READS: dict[str, tuple[Callable[[list[Order]], Any], Callable[[list[Order]], Any], int]] = {
    "in": (lambda pair: set(Order.objects.filter(tenant_id__in=_tenants(pair))), set, 1),
    "or": (
        lambda pair: set(Order.objects.filter(Q(tenant_id=_tenants(pair)[0]) | Q(pk=pair[1].pk))),
        set,
        1,
    ),
    "instances": (lambda pair: set(Order.objects.filter(customer__in=[order.customer for order in pair])), set, 1),
    "ordered": (
        lambda pair: list(Order.objects.filter(pk__in=_ids(pair)).order_by("-quantity")),
        lambda pair: pair[::-1],
        1,
    ),
    "in_bulk": (
        lambda pair: Order.objects.in_bulk(_ids(pair)),
        lambda pair: {order.pk: order for order in pair},
        1,
    ),
    "count": (lambda pair: Order.objects.filter(pk__in=_ids(pair)).count(), len, 1),
    "first": (
        lambda pair: Order.objects.filter(pk__in=_ids(pair)).order_by("quantity").first(),
        lambda pair: pair[0],
        1,
    ),
    "sum": (
        lambda pair: Order.objects.filter(pk__in=_ids(pair)).aggregate(n=Sum("quantity")),
        lambda pair: {"n": 7},
        1,
    ),
    "prefetch backwards": (
        lambda pair: [
            [line.product for line in order.lines.all()]
            for order in Order.objects.filter(pk__in=_ids(pair)).order_by("quantity").prefetch_related("lines")
        ],
        lambda pair: [["tea"], ["pen"]],
        2,
    ),
    "prefetch forwards": (
        lambda pair: [
            order.customer.name
            for order in Order.objects.filter(pk__in=_ids(pair)).order_by("quantity").prefetch_related("customer")
        ],
        lambda pair: ["Ada", "Zoe"],
        2,
    ),
    "prefetch on objects": (lambda pair: prefetch_related_objects(pair, "lines"), lambda pair: None, 1),
    "select_related": (
        lambda pair: {
            each.customer.name for each in Order.objects.filter(pk__in=_ids(pair)).select_related("customer")
        },
        lambda pair: {"Ada", "Zoe"},
        1,
    ),
    "update": (
        lambda pair: Order.objects.filter(pk__in=_ids(pair)).update(status="sent"),
        len,
        1,
    ),
}


@pytest.mark.parametrize(("ask", "answer", "each"), READS.values(), ids=READS)
def test_owners_are_asked(
    ask: Callable[[list[Order]], Any],
    answer: Callable[[list[Order]], Any],
    each: int,
    layout: Layout,
    pair: list[Order],
) -> None:
    # One database that owns both is asked once.
    expected = layout.expect(home=each, away=each if layout.away else 0)
    with fan_outs() as found, assert_statements(expected):
        assert ask(pair) == answer(pair)
    # Whether it counts as a fan-out depends on the keys, never on where the buckets live.
    assert len(found) >= each


def test_unions_that_are_sorted_by_what_they_do_not_select(layout: Layout, pair: list[Order]) -> None:
    rows = Order.objects.filter(pk__in=_ids(pair))
    union = rows.union(rows.filter(quantity=4)).order_by("-quantity")
    assert list(union.values_list("tenant_id", flat=True)) == _tenants(pair)[::-1]
    assert union.values("tenant_id")[1] == {"tenant_id": pair[0].tenant_id}


def test_bulk_update(layout: Layout, pair: list[Order]) -> None:
    for place, order in enumerate(pair):
        order.quantity = place
    with assert_statements(layout.expect(home=1, away=1 if layout.away else 0)):
        assert Order.objects.bulk_update(pair, ["quantity"]) == 2
    assert [Order.objects.get(pk=order.pk).quantity for order in pair] == [0, 1]


def test_delete(layout: Layout, pair: list[Order], shop: Shop) -> None:
    assert Order.objects.filter(pk__in=_ids(pair)).delete() == (
        6,
        {"shop.Line": 2, "shop.OrderTag": 1, "shop.Note": 1, "shop.Order": 2},
    )
    for order, tenant in zip(pair, _tenants(pair), strict=True):
        assert order.pk is not None
        assert not Order.objects.filter(tenant_id=tenant).exists()


def test_prefetch_from_a_global_model(layout: Layout, pair: list[Order], shop: Shop) -> None:
    """Who is in a region names no tenant, so the customers of all shards are asked for in the code."""
    message = (
        "This Customer query names no tenant_id, so its shard is unknown. Filter on tenant_id, "
        "or ask every shard with aggregator.fan_out()."
    )
    with pytest.raises(ShardKeyMissing, match=whole(message)):
        list(Region.objects.prefetch_related("customers"))
    with pytest.raises(ShardKeyMissing, match=whole(message)):
        list(shop.region.customers.all())
    assert shop.region.customers.get(tenant_id=shop.tenant) == shop.customer


def test_without_an_aggregator(layout: Layout, pair: list[Order]) -> None:
    message = (
        "This shop.Order query names rows of several shard keys, which may live on several shards, and nothing is "
        "installed to merge their answers. Add 'aggregator' to INSTALLED_APPS."
    )
    with no_aggregator(), assert_statements({}), pytest.raises(CrossShardQuery, match=whole(message)) as raised:
        list(Order.objects.filter(tenant_id__in=_tenants(pair)))
    assert raised.value.aliases == tuple(sorted({layout.home, layout.away or layout.home}))

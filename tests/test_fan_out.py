"""Everything a queryset does, on three kinds of cluster and on one plain database with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.paginator import EmptyPage, Paginator
from django.db import connections, transaction
from django.db.models import (
    Count,
    F,
    OuterRef,
    Subquery,
)
from django.db.models.expressions import RawSQL
from django.test.utils import CaptureQueriesContext

from aggregator import fan_out
from sharding.errors import CannotMerge, GlobalJoin, NotSharded, ShardKeyMissing
from tests.fan_out_reads import READS
from tests.messages import whole
from tests.shop.models import Customer, Line, Order, OrderTag, Region
from tests.two_sides import LAYOUTS, answers, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield request.param


@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_reads(read: Any) -> None:
    found, expected = answers(read)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize("name", ["slice", "group", "aggregate", "distinct in a slice", "count of a slice"])
def test_reads_inside_an_atomic_block(name: str) -> None:
    with transaction.atomic(using="default"):
        order = Order.objects.create(tenant_id=3, status="zzz", total=99)
        Order.objects.using("reference").bulk_create([order])
        found, expected = answers(READS[name])
    assert found == expected


@pytest.mark.parametrize(
    "ask",
    [lambda rows: rows.extra(select={"x": "1"}), lambda rows: rows.annotate(x=RawSQL("1", ()))],
    ids=["extra", "RawSQL"],
)
def test_refused(ask: Any) -> None:
    """On a cluster of one, too: a bucket that moves must not break what worked."""
    message = whole(
        "The answers of several shards to this shop.Order query cannot be merged exactly because of raw SQL in a "
        "query. Write it with Django's expressions."
    )
    with pytest.raises(CannotMerge, match=message) as caught:
        list(ask(fan_out(Order.objects)))
    assert caught.value.construct == "raw SQL in a query"


def test_without_the_opt_in() -> None:
    with pytest.raises(ShardKeyMissing):
        list(Order.objects.filter(status="paid"))


def test_not_sharded() -> None:
    message = whole("shop.Region is not sharded. Inherit from sharding.models.ShardedModel to shard it.")
    with pytest.raises(NotSharded, match=message):
        fan_out(Region.objects)


@pytest.mark.parametrize(
    "ask",
    [
        lambda rows: rows.select_related("region"),
        lambda rows: rows.order_by("region__name"),
        lambda rows: rows.filter(region__name="x"),
        lambda rows: rows.values("region__name").annotate(n=Count("id")),
    ],
    ids=["select_related", "order", "filter", "group"],
)
def test_joins_to_global_models_without_the_opt_in(ask: Any) -> None:
    with pytest.raises(GlobalJoin):
        list(ask(Customer.objects.filter(tenant_id__in=[1, 2, 3])))


def test_keys_of_several_shards_need_no_opt_in(layout: tuple[str, ...]) -> None:
    found = Order.objects.filter(tenant_id__in=[1, 2, 3, 4]).order_by("-total", "id")
    expected = Order.objects.using("reference").filter(tenant_id__in=[1, 2, 3, 4]).order_by("-total", "id")
    assert [order.pk for order in found] == [order.pk for order in expected]


def test_instances_belong_to_the_cluster() -> None:
    for order in fan_out(Order.objects).select_related("customer"):
        assert order._state.db == "default"
        assert order.customer is None or order.customer._state.db == "default"


def test_a_related_manager() -> None:
    customer = fan_out(Customer.objects).get(email="2@5")
    assert set(fan_out(customer.orders)) == set(customer.orders.all())


def test_prefetch_of_a_mixture_of_shards() -> None:
    """Each order gets its own lines, whichever shard it came from, in one query a shard."""
    orders = fan_out(Order.objects).prefetch_related("lines")
    for order in orders:
        assert {line.order_id for line in order.lines.all()} <= {order.pk}


def test_pages_by_number(layout: tuple[str, ...]) -> None:
    """Over several shards ties are broken by the id; a cluster of one sends Django's own SQL."""
    order = ["status"] if len(layout) > 1 else ["status", "id"]
    pages = Paginator(fan_out(Order.objects).order_by(*order), 7)
    rows = [order.pk for page in pages for order in page]
    assert len(rows) == pages.count == len(set(rows))
    no_page = dict.fromkeys((0, -1), "That page number is less than 1")
    for number, message in {**no_page, pages.num_pages + 1: "That page contains no results"}.items():
        with pytest.raises(EmptyPage, match=whole(message)):
            pages.page(number)


def test_every_shard_gets_one_statement(layout: tuple[str, ...]) -> None:
    """Of 20 rows, no shard is asked for more, and the offset is applied once."""
    with Captured(layout) as statements:
        list(fan_out(Order.objects).order_by("-total")[5:25])
    assert {alias: len(found) for alias, found in statements.items()} == dict.fromkeys(layout, 1)
    if len(layout) > 1:
        assert all(found[0].endswith('DESC, "shop_order"."id" DESC LIMIT 25') for found in statements.values())


def test_a_limit_is_not_pushed_below_a_group(layout: tuple[str, ...]) -> None:
    with Captured(layout) as statements:
        list(fan_out(Order.objects).values("status").annotate(n=Count("id")).order_by("-n")[:1])
    if len(layout) > 1:
        first = [found[0] for found in statements.values()]
        assert not any("LIMIT 1" in sql.replace("ON true LIMIT 1", "") for sql in first)


def test_explain() -> None:
    lines = fan_out(Order.objects).order_by("total")[:3].explain().splitlines()
    assert len(lines) > 1


class Captured:
    """The statements that each alias gets inside."""

    def __init__(self, aliases: tuple[str, ...]) -> None:
        self._contexts = {alias: CaptureQueriesContext(connections[alias]) for alias in aliases}

    def __enter__(self) -> dict[str, list[str]]:
        self.statements: dict[str, list[str]] = {}
        for context in self._contexts.values():
            context.__enter__()
        return self.statements

    def __exit__(self, *exc_info: Any) -> None:
        for alias, context in self._contexts.items():
            context.__exit__(*exc_info)
            self.statements[alias] = [
                query["sql"] for query in context.captured_queries if query["sql"].startswith(("SELECT", "WITH"))
            ]


def test_writes_are_summed_and_seen(layout: tuple[str, ...]) -> None:
    expected = Order.objects.using("reference").filter(status="paid").count()
    assert fan_out(Order.objects).filter(status="paid").update(quantity=F("quantity") + 100) == expected
    assert fan_out(Order.objects).filter(quantity__gte=100).count() > 0
    lines = Line.objects.using("reference").count()
    assert fan_out(Line.objects).delete() == (lines, {"shop.Line": lines})
    assert not fan_out(Line.objects).exists()


def test_delete_with_cascades() -> None:
    found = fan_out(Customer.objects).filter(name__contains="A").delete()
    expected = Customer.objects.using("reference").filter(name__contains="A")
    customers = [customer.pk for customer in expected]
    orders = list(Order.objects.using("reference").filter(customer__in=customers).values_list("pk", flat=True))
    assert found[1]["shop.Customer"] == len(customers)
    assert found[1]["shop.Order"] == len(orders)
    assert found[1]["shop.Line"] == Line.objects.using("reference").filter(order__in=orders).count()
    assert not fan_out(OrderTag.objects).filter(order__in=orders).exists()


def test_update_over_a_join() -> None:
    expected = Order.objects.using("reference").filter(lines__amount=2).distinct().count()
    assert fan_out(Order.objects).filter(lines__amount=2).update(status="two") == expected


def test_update_to_a_subquery() -> None:
    """Each shard would find the greatest amount of its own lines."""
    greatest = Line.objects.order_by("-amount").values("amount")[:1]
    message = whole(
        "This shop.Order query cannot be answered inside one bucket because of the subquery over shop.Line. Limit both "
        "queries to the same shard key, correlate them by it (OuterRef), or evaluate the inner one first: list(inner)."
    )
    with pytest.raises(CannotMerge, match=message), transaction.atomic(using="default"):
        fan_out(Order.objects).update(quantity=Subquery(greatest))
    own = Line.objects.filter(order=OuterRef("pk")).order_by("-amount").values("amount")[:1]
    assert fan_out(Order.objects).filter(lines__amount=2).update(quantity=Subquery(own)) > 0
    Order.objects.using("reference").filter(lines__amount=2).update(quantity=Subquery(own.using("reference")))
    found, expected = answers(READS["group by NULLs"])
    assert found == expected


def test_select_for_update() -> None:
    with transaction.atomic(using="default"):
        found = list(fan_out(Order.objects).select_for_update().order_by("total", "id")[:3])
    assert len(found) == 3


def test_async() -> None:
    from asgiref.sync import async_to_sync

    async def total() -> int:
        return await fan_out(Order.objects).acount()

    assert async_to_sync(total)() == Order.objects.using("reference").count()

"""Everything a queryset does, on three kinds of cluster and on one plain database with the same rows."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.paginator import EmptyPage, Paginator
from django.db import connections, transaction
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    Max,
    Min,
    OuterRef,
    Q,
    StdDev,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, Collate, Lower, Rank, TruncDay, Upper
from django.test.utils import CaptureQueriesContext

from aggregator import fan_out
from sharding.errors import CannotMerge, GlobalJoin, NotSharded, ShardKeyMissing
from tests.messages import whole
from tests.shop.models import Customer, Ledger, Line, Order, OrderTag, Region
from tests.two_sides import LAYOUTS, answers, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=LAYOUTS.keys(), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield request.param


PG = connections["default"].vendor == "postgresql"
PARTS = ("quantity", "total")

READS = {
    "all": lambda of: sorted(str(order.pk) for order in of(Order)),
    "order": lambda of: of(Order).order_by("total", "id"),
    "order descending": lambda of: of(Order).order_by("-total", "-id"),
    "order by two directions": lambda of: of(Order).order_by("quantity", "-weight", "id"),
    "order by text": lambda of: of(Order).order_by("status", "id").values_list("status", "id"),
    "order by text descending": lambda of: of(Order).order_by("-status", "id").values_list("status", "id"),
    "order by a moment descending": lambda of: of(Order).order_by("-created", "id").values_list("id"),
    "nulls first": lambda of: of(Order).order_by(F("quantity").asc(nulls_first=True), "id").values_list("id"),
    "nulls last": lambda of: of(Order).order_by(F("weight").desc(nulls_last=True), "id").values_list("id"),
    "nulls by default": lambda of: of(Order).order_by("-weight", "id").values_list("weight"),
    "order by what is not selected": lambda of: of(Order).order_by("-weight", "total", "id").values_list("status"),
    "order by a join": lambda of: of(Order).order_by("customer__name", "id").values_list("id"),
    "order by an expression": lambda of: of(Order).order_by(Lower("status"), F("total") * -1, "id"),
    "order by a collation": lambda of: of(Customer).order_by(Collate("name", "C" if PG else "binary"), "id"),
    "order by an annotation": lambda of: of(Order).annotate(x=F("total") + 1).order_by("-x", "id").values("x"),
    "order by a condition": lambda of: (
        of(Order).order_by(Case(When(status="paid", then=1), default=2), "id").values_list("id")
    ),
    "order by a composite key": lambda of: of(Ledger).order_by("-pk"),
    "reverse": lambda of: of(Order).order_by("total", "id").reverse(),
    "slice": lambda of: of(Order).order_by("total", "id")[5:11],
    "slice without order": lambda of: len(of(Order)[3:9]),
    "slice to the end": lambda of: of(Order).order_by("id")[30:],
    "slice beyond the end": lambda of: of(Order).order_by("id")[1000:1010],
    "index": lambda of: of(Order).order_by("-weight", "id")[4],
    "count": lambda of: of(Order).count(),
    "count with a filter": lambda of: of(Order).filter(status="paid").count(),
    "count of nothing": lambda of: of(Order).filter(total=-1).count(),
    "count of an empty IN": lambda of: of(Order).filter(Q(total__in=[])).count(),
    "count of a slice": lambda of: of(Order).order_by("id")[3:20].count(),
    "count of a slice at the end": lambda of: of(Order)[30:60].count(),
    "count of distinct rows": lambda of: of(Order).values("status").distinct().count(),
    "count of distinct rows in a slice": lambda of: of(Order).values("status", "quantity").distinct()[2:5].count(),
    "count of groups": lambda of: of(Order).values("status").annotate(n=Count("id")).count(),
    "count of groups with HAVING": lambda of: of(Order).values("status").annotate(n=Count("id")).filter(n=9).count(),
    "count over a join": lambda of: of(Order).filter(lines__amount__gt=0).count(),
    "exists": lambda of: of(Order).filter(status="paid").exists(),
    "exists, not": lambda of: of(Order).filter(status="gone").exists(),
    "exists in a slice": lambda of: (of(Order)[30:31].exists(), of(Order)[1000:1001].exists()),
    "exists with distinct": lambda of: of(Order).values("status").distinct()[3:5].exists(),
    "first": lambda of: of(Order).order_by("-total", "id").first(),
    "first without order": lambda of: of(Order).first(),
    "last": lambda of: of(Order).order_by("-total", "id").last(),
    "earliest": lambda of: of(Order).filter(created__isnull=False).earliest("created", "id"),
    "latest": lambda of: of(Order).latest("weight", "id").weight,
    "get": lambda of: of(Customer).get(email="3@4"),
    "values": lambda of: of(Order).order_by("id").values("status", "total"),
    "values of an expression": lambda of: of(Order).order_by("id").values(up=Upper("status")),
    "values_list flat": lambda of: of(Order).order_by("id").values_list("weight", flat=True),
    "values_list named": lambda of: of(Order).order_by("id").values_list("id", "total", named=True),
    "dates": lambda of: of(Order).datetimes("created", "day"),
    "dates descending": lambda of: of(Order).datetimes("created", "month", order="DESC"),
    "distinct": lambda of: of(Order).order_by("status", "quantity").values_list("status", "quantity").distinct(),
    "distinct in a slice": lambda of: of(Order).order_by("status").values_list("status").distinct()[1:3],
    "distinct, other order": lambda of: (
        of(Order).order_by("-total", "quantity").values_list("quantity", "total").distinct()[:3][0]
    ),
    "distinct rows": lambda of: of(Order).filter(lines__amount__gte=0).distinct().order_by("id"),
    "distinct floats": lambda of: of(Order).order_by("weight").values_list("weight").distinct(),
    "in_bulk": lambda of: of(Order).in_bulk(),
    "iterator": lambda of: list(of(Order).order_by("weight", "id").iterator(chunk_size=3)),
    "iterator of a slice": lambda of: list(of(Order).order_by("weight", "id")[4:17].iterator(chunk_size=3)),
    "iterator left": lambda of: next(of(Order).order_by("weight", "id").iterator(chunk_size=3)),
    "select_related": lambda of: [
        (order.id, order.customer and order.customer.name)
        for order in of(Order).select_related("customer").order_by("-total", "id")
    ],
    "prefetch_related": lambda of: [
        (order.id, sorted(line.amount for line in order.lines.all()), [tag.label for tag in order.tags.all()])
        for order in of(Order).prefetch_related("lines", "tags").order_by("id")
    ],
    "only": lambda of: of(Order).only("status").order_by("id").values_list("status"),
    "a join": lambda of: of(Line).filter(order__status="paid").order_by("id"),
    "many to many": lambda of: of(Order).filter(tags__label="blue").order_by("id"),
    "a correlated subquery": lambda of: (
        of(Order).filter(Exists(Line.objects.filter(order=OuterRef("pk"), amount=2))).count()
    ),
    "annotate a subquery": lambda of: (
        of(Order)
        .annotate(most=Subquery(Line.objects.filter(order=OuterRef("pk")).order_by("-amount").values("amount")[:1]))
        .order_by("-most", "id")
        .values_list("most", "id")
    ),
    "aggregate": lambda of: of(Order).aggregate(n=Count("id"), s=Sum("total"), q=Sum("quantity"), low=Min("created")),
    "aggregate floats": lambda of: round(of(Order).aggregate(s=Sum("weight"))["s"], 9),
    "aggregate text": lambda of: of(Customer).aggregate(Min("name"), Max("name")),
    "aggregate of nothing": lambda of: (
        of(Order)
        .filter(total=-1)
        .aggregate(n=Count("id"), s=Sum("total"), a=Avg("total"), m=Max("status"), d=Sum("total", default=5))
    ),
    "aggregate of an empty IN": lambda of: (
        of(Order).filter(total__in=[]).aggregate(n=Count("id"), d=Sum("total", default=5))
    ),
    "aggregate with filter": lambda of: of(Order).aggregate(
        paid=Count("id", filter=Q(status="paid")), s=Sum("total", filter=Q(quantity=2), default=0)
    ),
    "aggregate distinct": lambda of: of(Order).aggregate(
        n=Count("status", distinct=True),
        s=Sum("quantity", distinct=True),
        a=Avg("quantity", distinct=True),
        all=Count("*"),
    ),
    "aggregate distinct with filter": lambda of: of(Order).aggregate(
        n=Count("total", distinct=True, filter=Q(status="paid")), m=Max("total")
    ),
    "aggregate distinct ids": lambda of: of(Order).aggregate(
        n=Count("lines", distinct=True), i=Count("id", distinct=True)
    ),
    "aggregate expressions": lambda of: of(Order).aggregate(x=Sum(F("total") * F("quantity")) / Count("id") + 1),
    "aggregate over annotations": lambda of: (
        of(Order).annotate(n=Count("lines")).aggregate(Sum("n"), Avg("n"), Max("n"))
    ),
    "aggregate over a key's groups": lambda of: (
        of(Order).values("tenant_id").annotate(s=Sum("quantity")).aggregate(Max("s"), Min("s"))
    ),
    "group": lambda of: of(Order).values("status").annotate(n=Count("id"), s=Sum("total")).order_by("status"),
    "group by NULLs": lambda of: of(Order).values("quantity").annotate(n=Count("id")).order_by("quantity"),
    "group by two": lambda of: (
        of(Order).values("status", "quantity").annotate(n=Count("*")).order_by("n", *PARTS[:1], "status")
    ),
    "group by an expression": lambda of: (
        of(Order).annotate(day=TruncDay("created")).values("day").annotate(n=Count("id")).order_by("day")
    ),
    "group by a condition": lambda of: (
        of(Order)
        .values(kind=Case(When(status="paid", then=Value("p")), default=Value("other")))
        .annotate(n=Count("id"))
        .order_by("kind")
    ),
    "group by a join": lambda of: of(Line).values("order__status").annotate(n=Count("id")).order_by("order__status"),
    "group by a foreign key with NULLs": lambda of: (
        of(Order).values("customer").annotate(n=Count("id")).order_by("-n", "customer")[:3]
    ),
    "group by the key": lambda of: (
        of(Order).values("tenant_id").annotate(a=StdDev("total")).order_by("-a", "tenant_id")
    ),
    "group by the id": lambda of: of(Order).annotate(n=Count("lines"), m=Max("lines__amount")).order_by("-n", "id"),
    "group without selecting the group": lambda of: (
        of(Order).values("status").annotate(a=Avg("quantity")).order_by("a", "status").values_list("a", flat=True)
    ),
    "HAVING": lambda of: of(Order).values("status").annotate(n=Count("id")).filter(n__gt=8).order_by("status"),
    "HAVING with a decimal": lambda of: (
        of(Order).values("quantity").annotate(s=Sum("total")).filter(s__gt="5.5").order_by("s")
    ),
    "HAVING and WHERE in one": lambda of: (
        of(Order)
        .values("quantity")
        .annotate(n=Count("id"))
        .filter(Q(n__gt=10) | Q(quantity__lt=1))
        .order_by("quantity")
    ),
    "order by an aggregate in a slice": lambda of: (
        of(Order).values("total").annotate(n=Count("id")).order_by("-n", "total")[1:4]
    ),
    "order by an average in a slice": lambda of: (
        of(Order).values("total").annotate(a=Avg("weight")).order_by("-a")[:1].get()["total"]
    ),
    "distinct groups": lambda of: (
        of(Order).values("total").annotate(n=Count("id")).values_list("n").distinct().order_by("n")
    ),
    "an expression of aggregates": lambda of: (
        of(Order).values("status").annotate(x=Coalesce(Sum("quantity"), 0) * 2 + Count("id")).order_by("status")
    ),
    "groups of nothing": lambda of: of(Order).filter(total=-1).values("status").annotate(n=Count("id")),
    "none": lambda of: of(Order).none(),
}


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


REFUSED = {
    "a window function": lambda: fan_out(Order.objects).annotate(r=Window(Rank(), order_by="total")),
    "StdDev()": lambda: fan_out(Order.objects).values("status").annotate(x=StdDev("total")),
    "distinct('status')": lambda: fan_out(Order.objects).order_by("status").distinct("status"),
    "extra()": lambda: fan_out(Order.objects).extra(select={"x": "1"}),
    "an aggregate over a slice": lambda: fan_out(Order.objects).order_by("id")[:5].aggregate(Sum("total")),
    "an aggregate over DISTINCT rows": lambda: (
        fan_out(Order.objects).values("total").distinct().aggregate(Sum("total"))
    ),
    "an aggregate over groups that span several shards": lambda: (
        fan_out(Order.objects).values("status").annotate(n=Count("id")).aggregate(Max("n"))
    ),
}


@pytest.mark.parametrize("construct", REFUSED)
def test_refused(construct: str) -> None:
    """On a cluster of one, too: a bucket that moves must not break what worked."""
    with pytest.raises(CannotMerge) as caught:
        list(REFUSED[construct]())
    assert caught.value.construct == construct
    assert str(caught.value).startswith(
        f"The answers of several shards to this shop.Order query cannot be merged exactly because of {construct}. "
    )


def test_the_whole_message_of_a_refusal() -> None:
    message = whole(
        "The answers of several shards to this shop.Order query cannot be merged exactly because of StdDev(). "
        "Limit the query to one shard key, or do this part in Python."
    )
    with pytest.raises(CannotMerge, match=message):
        fan_out(Order.objects).aggregate(StdDev("total"))


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
        lambda: fan_out(Customer.objects).select_related("region"),
        lambda: fan_out(Customer.objects).order_by("region__name"),
        lambda: fan_out(Customer.objects).filter(region__name="x"),
        lambda: fan_out(Customer.objects).values("region__name").annotate(n=Count("id")),
    ],
    ids=["select_related", "order", "filter", "group"],
)
def test_joins_to_global_models(ask: Any) -> None:
    with pytest.raises(GlobalJoin):
        list(ask())


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
    for number in (0, -1, pages.num_pages + 1):
        with pytest.raises(EmptyPage):
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
        assert not any("LIMIT 1" in sql.replace("FROM t LIMIT 1", "") for sql in first)


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


def test_select_for_update() -> None:
    with transaction.atomic(using="default"):
        found = list(fan_out(Order.objects).select_for_update().order_by("total", "id")[:3])
    assert len(found) == 3


def test_async() -> None:
    from asgiref.sync import async_to_sync

    async def total() -> int:
        return await fan_out(Order.objects).acount()

    assert async_to_sync(total)() == Order.objects.using("reference").count()

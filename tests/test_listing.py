"""Aggregates that list their values, over several shards: in a total order those of one database, else gathered."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
from django.db.models import Count, F, Q, StdDev, Sum
from django.db.models.functions import Upper

from aggregator import explain, fan_out
from tests import servers
from tests.aggregates import listing
from tests.shop.models import Ledger, Line, Order
from tests.two_sides import LAYOUTS, answers, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield request.param


def arrays(name: Any, *order: Any, **options: Any) -> Any:
    return listing("ArrayAgg", name, order=order, **options)


def texts(name: Any, *order: Any, **options: Any) -> Any:
    return listing("StringAgg", name, order=order, **options)


def documents(name: Any, *order: Any, **options: Any) -> Any:
    return listing("JSONBAgg", name, order=order, **options)


READS = {
    "of all rows": lambda of: of(Order).aggregate(
        x=arrays("total", "id"), y=documents("weight", "-id"), z=texts("status", "status")
    ),
    "in groups": lambda of: (
        of(Order)
        .values("status")
        .annotate(
            n=Count("id"),
            x=arrays("created", F("quantity").desc(nulls_last=True), "weight", "id"),
            y=texts(Upper("status"), "-total", "-id"),
            s=Sum("total"),
            d=StdDev("quantity"),
        )
        .order_by("status")
    ),
    "by themselves": lambda of: of(Order).values("total").annotate(x=arrays("quantity", "-quantity")).order_by("total"),
    "different ones": lambda of: (
        of(Order)
        .values("quantity")
        .annotate(x=arrays("status", "-status", distinct=True), y=texts("status", "status", distinct=True))
        .order_by("quantity")
    ),
    "different ones over a join": lambda of: of(Order).aggregate(
        x=arrays("lines__amount", "lines__amount", distinct=True), n=Count("id", distinct=True)
    ),
    "with a filter": lambda of: (
        of(Order)
        .values("status")
        .annotate(
            x=arrays("quantity", "id", filter=Q(total__gt=0.5)),
            y=documents("total", "total", "id", filter=Q(weight__gt=2)),
            z=arrays("id", "id", filter=Q(status="gone")),
            n=Count("id", filter=Q(total__gt=0.5)),
        )
        .order_by("status")
    ),
    "of nothing": lambda of: of(Order).filter(total=-1).aggregate(x=arrays("id", "id"), n=Count("id")),
    "by default": lambda of: of(Order).filter(total=-1).aggregate(x=texts("status", "id", default="none")),
    "by a join": lambda of: of(Line).aggregate(x=arrays("order__status", "amount", "order__total", "id")),
    "by a composite key": lambda of: of(Ledger).aggregate(
        x=arrays("text", "tenant_id", "-number"), y=documents("number", "number")
    ),
    "HAVING": lambda of: (
        of(Order)
        .values("quantity")
        .annotate(x=texts("status", "status", distinct=True))
        .filter(x__contains="paid")
        .order_by("-x", "quantity")
    ),
    "beside different ids": lambda of: of(Order).aggregate(
        x=arrays("quantity", "id"), n=Count("id", distinct=True), m=Count("status", distinct=True)
    ),
}
GATHERED = {
    "no order": (lambda: arrays("status"), "ArrayAgg() in an order that is not total"),
    "no total order": (lambda: texts("status", "total"), "StringAgg() in an order that is not total"),
    "different ones without an order": (
        lambda: arrays("status", distinct=True),
        "ArrayAgg() in an order that is not total",
    ),
    "equal decimals may look different": (lambda: arrays("total", "total"), "ArrayAgg() in an order that is not total"),
    "a join to many": (lambda: arrays("lines__amount", "id"), "ArrayAgg() in an order that is not total"),
    "the same values of a join to many": (
        lambda: arrays("lines__amount", "lines__amount"),
        "ArrayAgg() over rows of joins to many",
    ),
}
if servers.engine == "sqlite":
    READS, GATHERED = {}, {}


def test_reads() -> None:
    for name, read in READS.items():
        found, expected = answers(read)
        assert repr(found) == repr(expected), name


def test_gathered() -> None:
    for name, (make, construct) in GATHERED.items():
        rows = fan_out(Order.objects).values("quantity").annotate(x=make())
        assert explain(rows).reason == f"the rows are gathered in one place because of {construct}", name
        found, expected = answers(partial(_listed, make()))
        assert [_in_any_order(each) for each in found] == [_in_any_order(each) for each in expected], name


def _listed(aggregate: Any, of: Any) -> Any:
    return of(Order).values("quantity").annotate(x=aggregate).order_by("quantity")


def _in_any_order(group: dict[str, Any]) -> Any:
    """Return a group without the order of what it lists, which is left open."""
    listed = group["x"].split(",") if isinstance(group["x"], str) else group["x"]
    return group["quantity"], sorted(str(value).strip() for value in listed)

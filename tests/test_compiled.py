"""Values that Python finds equal, and a database does not: what is asked with one is not asked with the other."""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db.models import Case, Count, Exists, F, OuterRef, Q, Sum, Value, When, Window
from django.db.models.functions import JSONObject, RowNumber

from aggregator.compiled import place_of
from tests.shop.models import Line, Order
from tests.two_sides import LAYOUTS, answers, rows_on, save

FIRST = datetime.datetime(2013, 10, 27, 2, 30, tzinfo=ZoneInfo("Europe/Paris"))
SECOND = FIRST.replace(fold=1)


@pytest.mark.parametrize(
    ("one", "other"),
    [(1, 1.0), (1, True), (0.0, -0.0), (Decimal("1.0"), Decimal("1.00")), (FIRST, SECOND), ([1], [1.0])],
    ids=repr,
)
def test_equal_and_not_the_same(one: Any, other: Any) -> None:
    assert one == other
    assert place_of(("%s", (one,)), [("%s", (other,)), ("%s", (one,))]) == 1
    assert place_of(("%s", (one,)), [("%s", (other,))]) is None


@pytest.fixture(scope="module")
def rows(django_db_setup: None, django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock(), rows_on(LAYOUTS["none"]):
        between = FIRST.astimezone(datetime.UTC) + datetime.timedelta(minutes=30)
        save(Order, [Order(tenant_id=tenant, status="x", quantity=1, created=between) for tenant in range(8)])
        yield


def ones(one: Any, zero: Any) -> Case:
    return Case(When(status="paid", then=Value(one)), default=Value(zero))


def of_orders(of: Any, moment: datetime.datetime) -> Exists:
    return Exists(of(Order).filter(created__gt=moment, status="x", quantity=OuterRef("amount")))


QUESTIONS = {
    "numbers of two types": lambda of: (
        of(Order)
        .values("quantity")
        .annotate(n=Sum(ones(1, 0)), share=Sum(ones(1.0, 0.0)) / Count("pk"))
        .order_by("quantity")
    ),
    "two moments, counted": lambda of: of(Order).aggregate(
        n=Count("pk", filter=Q(created__gt=FIRST)), m=Count("pk", filter=Q(created__gt=SECOND))
    ),
    "two moments, of which rows travel": lambda of: (
        of(Line).filter(of_orders(of, SECOND) | of_orders(of, FIRST)).order_by("pk").values_list("pk")
    ),
    "a list": lambda of: (
        of(Order)
        .annotate(n=Window(RowNumber(), order_by="pk"), all=JSONObject(s="status", q=F("quantity")))
        .filter(all__has_keys=["s", "q"])
        .order_by("pk")
        .values_list("pk", "n")
    ),
}


@pytest.mark.django_db(databases="__all__")
@pytest.mark.parametrize("question", QUESTIONS)
def test_as_one_database(question: str, rows: None) -> None:
    found, expected = answers(QUESTIONS[question])
    assert found == expected
    assert found

"""Pages are the list of one database, cut: for any order, forth and back, and while rows come and go."""

from __future__ import annotations

import datetime
import math
import os
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import transaction
from django.db.models import (
    BinaryField,
    BooleanField,
    Case,
    Count,
    DateTimeField,
    DurationField,
    ExpressionWrapper,
    F,
    FloatField,
    Func,
    IntegerField,
    Q,
    TextField,
    Value,
    When,
)
from django.db.models.expressions import OrderBy
from django.db.models.functions import Cast, Collate, Length, Lower
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator import KeysetPaginator, fan_out
from tests import servers
from tests.shop.models import Country, Order
from tests.two_sides import LAYOUTS, REFERENCE, rows_on

pytestmark = [pytest.mark.differential, pytest.mark.django_db(databases="__all__")]

#: How many orderings are tried where most are.
MANY = min(25, int(os.environ.get("SHARDKIT_DIFFERENTIAL_PROGRAMS", 2_200)) // 25)

EPOCH = datetime.datetime(2013, 1, 1, tzinfo=datetime.UTC)
POSTGRESQL = servers.engine == "postgresql"
NO_NUMBERS = (math.nan, math.inf, -math.inf)
WEIGHTS = [None, 0.1, 1 / 3, -0.0, 1e-300, -1.5e300, *(NO_NUMBERS if POSTGRESQL else ())]
#: The hour that Berlin has twice, by the microsecond.
MOMENTS = [
    None,
    *(
        datetime.datetime(2012, 10, 28, hour, 30, 0, micro, tzinfo=datetime.UTC)
        for hour in (0, 1)
        for micro in (0, 1, 999_999)
    ),
]
KEYS: dict[str, Any] = {
    **{name: F(name) for name in ("status", "total", "quantity", "weight", "created", "id", "tenant_id", "n")},
    "a related name": F("customer__name"),
    "a relation": F("customer"),
    "lower": Lower("status"),
    "a length": Length("customer__name"),
    "a sum": F("quantity") + F("tenant_id"),
    "a product": ExpressionWrapper(F("weight") * 2, FloatField()),
    "a truth": ExpressionWrapper(Q(total__gt=Decimal("0.5")), BooleanField()),
    "a case": Case(When(quantity=1, then=2), When(quantity=2, then=None), default=0, output_field=IntegerField()),
}
if POSTGRESQL:
    KEYS["bytes"] = Func(Cast("id", TextField()), Value("escape"), function="decode", output_field=BinaryField())
    KEYS["an interval"] = ExpressionWrapper(F("created") - Value(EPOCH, DateTimeField()), DurationField())
    KEYS["a collation"] = Collate("status", "C")

TERMS = st.tuples(st.sampled_from(sorted(KEYS)), st.booleans(), st.sampled_from([None, "first", "last"]))
ORDERINGS = st.lists(TERMS, max_size=3, unique_by=lambda term: term[0])


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        for number, pk in enumerate(Order.objects.using(REFERENCE).order_by("id").values_list("pk", flat=True)):
            values = {"weight": WEIGHTS[number % len(WEIGHTS)], "created": MOMENTS[number % len(MOMENTS)]}
            fan_out(Order.objects).filter(pk=pk).update(**values)
            Order.objects.using(REFERENCE).filter(pk=pk).update(**values)
        yield request.param


def ordering(terms: Any) -> list[OrderBy]:
    return [
        OrderBy(KEYS[name], descending=descending, **({f"nulls_{nulls}": True} if nulls else {}))
        for name, descending, nulls in terms
    ]


def counted(queryset: Any) -> Any:
    return queryset.annotate(n=Count("lines"))


def expected(queryset: Any, terms: Any) -> list[Any]:
    # The paginator's last key, in its direction.
    last = [] if any(name == "id" for name, _, _ in terms) else ["-id" if terms and terms[-1][1] else "id"]
    return [order.pk for order in queryset.order_by(*ordering(terms), *last)]


def walked(paginator: Any, cursor: str | None = None, *, back: bool = False) -> list[Any]:
    """Return all pages from a cursor on, in the order in which they were met."""
    pages = [paginator.page(cursor)]
    while True:
        cursor = pages[-1].previous_cursor if back else pages[-1].next_cursor
        if cursor is None:
            return pages
        pages.append(paginator.page(cursor))


@settings(max_examples=MANY)
@given(ORDERINGS, st.integers(3, 20))
def test_any_order_forth_and_back(terms: Any, per_page: int) -> None:
    everything = expected(counted(Order.objects.using(REFERENCE)), terms)
    paginator = KeysetPaginator(counted(fan_out(Order.objects)), per_page, ordering=ordering(terms))
    pages = walked(paginator)
    assert [order.pk for page in pages for order in page] == everything
    assert all(len(page) == per_page for page in pages[:-1])
    back = walked(paginator, pages[-1].previous_cursor, back=True) if pages[-1].previous_cursor else []
    assert [[order.pk for order in page] for page in back] == [[order.pk for order in page] for page in pages[-2::-1]]


@settings(max_examples=MANY * 3 // 5)
@given(ORDERINGS, st.integers(2, 9), st.data())
def test_rows_that_come_and_go(terms: Any, per_page: int, data: Any) -> None:
    """Between pages others insert and delete: what was there all the time comes once, and in order."""
    terms = [term for term in terms if term[0] != "n"]
    with transaction.atomic(using="default"):
        before = expected(Order.objects.using(REFERENCE), terms)
        gone: set[Any] = set()
        found: list[Any] = []
        paginator = KeysetPaginator(fan_out(Order.objects), per_page, ordering=ordering(terms))
        page = paginator.page()
        while True:
            found += [order.pk for order in page]
            if page.next_cursor is None:
                break
            # Also the very row that the cursor names.
            victim = data.draw(st.sampled_from([found[-1], *before]))
            fan_out(Order.objects).filter(pk=victim).delete()
            gone.add(victim)
            weight, quantity = data.draw(st.sampled_from(WEIGHTS)), data.draw(st.sampled_from([None, 0, 1]))
            Order.objects.create(tenant_id=data.draw(st.integers(0, 7)), weight=weight, quantity=quantity)
            page = paginator.page(page.next_cursor)
        assert len(found) == len(set(found))
        assert [pk for pk in found if pk in before and pk not in gone] == [pk for pk in before if pk not in gone]
        transaction.set_rollback(True, using="default")


@settings(max_examples=MANY // 3)
@given(ORDERINGS, st.integers(1, 4))
def test_one_shard_key(terms: Any, per_page: int) -> None:
    everything = expected(counted(Order.objects.using(REFERENCE).filter(tenant_id=3)), terms)
    pages = walked(KeysetPaginator(counted(Order.objects.filter(tenant_id=3)), per_page, ordering=ordering(terms)))
    assert [order.pk for page in pages for order in page] == everything


@settings(max_examples=MANY // 3)
@given(ORDERINGS, st.integers(1, 4))
def test_a_distinct_queryset(terms: Any, per_page: int) -> None:
    terms = [term for term in terms if term[0] != "n"]
    everything = expected(Order.objects.using(REFERENCE).filter(lines__amount__gte=1).distinct(), terms)
    joined = fan_out(Order.objects).filter(lines__amount__gte=1).distinct()
    pages = walked(KeysetPaginator(joined, per_page * 5, ordering=ordering(terms)))
    assert [order.pk for page in pages for order in page] == everything


def test_a_reference_model() -> None:
    for code, name in (("PE", "Peru"), ("DE", "Germany"), ("FR", "France")):
        Country.objects.create(code=code, name=name)
    pages = walked(KeysetPaginator(Country.objects.all(), 1, ordering=["-currency", "name"]))
    assert [country.code for page in pages for country in page] == ["FR", "DE", "PE"]


def test_each_key_by_itself() -> None:
    for name in sorted(KEYS):
        for descending in (False, True):
            terms = [(name, descending, None)]
            everything = expected(counted(Order.objects.using(REFERENCE)), terms)
            pages = walked(KeysetPaginator(counted(fan_out(Order.objects)), 9, ordering=ordering(terms)))
            assert [order.pk for page in pages for order in page] == everything, name

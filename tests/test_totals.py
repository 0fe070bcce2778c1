"""Partial results that are finished in Python: with the digits, types and order of the database, or by the database."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import date
from decimal import Decimal
from typing import Any

import pytest
from django.db import connections
from django.db.models import Avg, Count, F, Max, Min, Q, QuerySet, Sum, Value
from django.db.models.functions import Collate, Lower
from hypothesis import given, settings
from hypothesis import strategies as st

from aggregator import fan_out, partials
from aggregator.totals import Totals, quotient, summed
from demo.answers import exact
from sharding.testing import cluster
from sharding.testing.statements import assert_statements
from tests.shop.models import Customer, Order

OWNERS = ("default", "shard_a", "shard_b", "shard_c")
pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", autouse=True)
def layout(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*OWNERS):
        yield


@pytest.fixture
def rows(db: None) -> None:
    statuses = ["new", "paid", "Paid", "é", "z"]
    Order.objects.bulk_create(
        Order(
            tenant_id=number,
            status=statuses[number % 5],
            quantity=None if number % 5 == 4 or number % 7 == 0 else number * number - 400,
            total=Decimal(number * 7) / 4,
            weight=number / 3,
        )
        for number in range(60)
    )
    days = [None, date(2024, 2, 29), date(1999, 1, 1)]
    Customer.objects.bulk_create(Customer(tenant_id=n, email=str(n), joined=days[n % 3]) for n in range(20))


def orders() -> QuerySet[Order]:
    return fan_out(Order.objects)


def customers() -> QuerySet[Customer]:
    return fan_out(Customer.objects)


def by(*fields: str) -> Any:
    return orders().values(*fields).order_by(*fields)


ALL = {"n": Count("id"), "sum": Sum("quantity"), "avg": Avg("quantity"), "min": Min("quantity"), "max": Max("quantity")}

NONE = Q(total=0)

HERE: dict[str, Callable[[], Any]] = {
    "aggregates": lambda: orders().aggregate(**ALL, total=Sum("total")),
    "aggregates of no rows": lambda: orders().filter(status="none").aggregate(**ALL),
    "aggregates of NULLs": lambda: orders().filter(quantity=None).aggregate(**ALL),
    "groups": lambda: list(by("status").annotate(**ALL, total=Sum("total"))),
    "groups of no rows": lambda: list(by("status").filter(status="none").annotate(n=Count("id"))),
    "groups by NULL": lambda: list(by("quantity").annotate(n=Count("id"))),
    "descending": lambda: list(by("quantity").order_by(F("quantity").desc(nulls_last=True)).annotate(n=Count("id"))),
    "two keys": lambda: list(by("status", "quantity").annotate(n=Count("id"), m=Max("quantity"))),
    "filters": lambda: list(by("status").annotate(n=Count("id", filter=NONE), s=Sum("quantity", filter=NONE))),
    "a sum of expressions": lambda: orders().aggregate(s=Sum(F("quantity") * 2), n=Count("weight")),
    "dates": lambda: list(customers().values("joined").order_by("-joined").annotate(n=Count("id"), m=Max("joined"))),
    "aggregates after annotate()": lambda: by("tenant_id").annotate(n=Count("id")).aggregate(s=Sum("n"), k=Count("*")),
    "COUNT(DISTINCT key)": lambda: list(by("status").annotate(n=Count("tenant_id", distinct=True))),
    "different values": lambda: orders().aggregate(n=Count("quantity", distinct=True)),
    "different texts": lambda: orders().aggregate(d=Count("status", distinct=True), **ALL),
    "different values of no rows": lambda: orders().filter(status="none").aggregate(
        d=Count("status", distinct=True), **ALL, total=Sum("total")
    ),
    "different values of the group": lambda: list(by("status").annotate(n=Count("status", distinct=True))),
    "different values of groups": lambda: list(
        by("status").annotate(d=Count("quantity", distinct=True), e=Count("tenant_id", distinct=True), **ALL)
    ),
    "different values by a filter": lambda: list(
        by("status").annotate(d=Count("quantity", distinct=True, filter=Q(quantity__gt=0)), n=Count("id"))
    ),
}  # fmt: skip

THERE: dict[str, Callable[[], Any]] = {
    "HAVING": lambda: list(by("status").annotate(n=Count("id")).filter(n__gt=11)),
    "a slice": lambda: list(by("status").annotate(n=Count("id"))[:2]),
    "DISTINCT": lambda: list(by("status").annotate(n=Count("id")).distinct()),
    "an order by an aggregate": lambda: list(orders().values("status").annotate(n=Sum("quantity")).order_by("n")),
    "an expression over aggregates": lambda: list(by("status").annotate(n=Count("id") + Value(1))),
    "floats": lambda: orders().aggregate(s=Sum("weight")),
    "averages of decimals": lambda: orders().aggregate(a=Avg("total")),
    "averages of what is declared": lambda: orders().aggregate(a=Avg(F("quantity") * 2)),
    "a greatest text": lambda: orders().aggregate(m=Max("status")),
    "sums of different values": lambda: orders().aggregate(n=Sum("quantity", distinct=True)),
    "averages of different values": lambda: orders().aggregate(n=Avg("quantity", distinct=True)),
    "different values of an inner query": lambda: (
        by("tenant_id").annotate(n=Count("id")).aggregate(d=Count("tenant_id", distinct=True), s=Sum("n"))
    ),
    "different decimals": lambda: orders().aggregate(n=Count("total", distinct=True)),
    "different dates": lambda: customers().aggregate(n=Count("joined", distinct=True)),
    "different texts of expressions": lambda: orders().aggregate(n=Count(Lower("status"), distinct=True)),
    "different texts of a collation": lambda: orders().aggregate(n=Count(Collate("status", "C"), distinct=True)),
    "groups of decimals": lambda: list(by("total").annotate(n=Count("id"))),
}


@pytest.mark.parametrize("ask", HERE.values(), ids=HERE.keys())
def test_finished_here(rows: None, ask: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    with assert_statements(dict.fromkeys(OWNERS, 1)):
        found = ask()
    monkeypatch.setattr(partials, "totals", lambda *args: None)
    assert exact(found) == exact(ask())


@pytest.mark.parametrize("ask", THERE.values(), ids=THERE.keys())
def test_finished_by_a_shard(rows: None, ask: Callable[[], Any]) -> None:
    with assert_statements(dict.fromkeys(OWNERS, 1) | {"shard_a": 2}):
        ask()


def test_dates_that_python_does_not_know_are_counted(rows: None) -> None:
    for alias in OWNERS:
        with connections[alias].sharded_statements(), connections[alias].cursor() as cursor:
            cursor.execute("UPDATE shop_customer SET joined = 'infinity' WHERE joined = '1999-01-01'")
    assert customers().aggregate(n=Count("joined", distinct=True)) == {"n": 2}


INTEGERS = st.one_of(
    st.integers(-(10**6), 10**6), st.integers(-(2**63), 2**63 - 1), st.sampled_from([10_000**n for n in range(5)])
)
NUMBERS = st.one_of(st.integers(1, 10**4), st.integers(1, 2**63 - 1), st.sampled_from([10_000**n for n in range(5)]))


@settings(max_examples=30)
@given(pairs=st.lists(st.tuples(INTEGERS, NUMBERS), min_size=100, max_size=300))
def test_quotient(pairs: list[tuple[int, int]]) -> None:
    """Every digit of PostgreSQL's, and their number."""
    with connections["shard_a"].cursor() as cursor:
        cursor.execute(
            "SELECT (t / n)::text FROM unnest(%s::numeric[], %s::numeric[]) WITH ORDINALITY AS p (t, n, o) ORDER BY o",
            [list(column) for column in zip(*pairs, strict=True)],
        )
        theirs = [Decimal(row[0]).as_tuple() for row in cursor.fetchall()]
    assert [quotient(*pair).as_tuple() for pair in pairs] == theirs


def test_no_rows_have_one_row_of_aggregates_and_no_groups() -> None:
    assert list(Totals(0, [len]).finish([[], []])) == [(0,)]
    assert list(Totals(1, [len]).finish([[], []])) == []


def test_sums() -> None:
    assert summed([]) is None
    assert summed([1, 2**70]) == 2**70 + 1
    assert summed([Decimal("1e50"), Decimal("1e-50"), Decimal("-1e50")]) == Decimal("1e-50")
    # As PostgreSQL says since version 14.
    assert summed([Decimal("Infinity"), Decimal("-Infinity")]).is_nan()

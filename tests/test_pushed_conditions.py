"""
Conditions over joins, in every place where a statement may have one: what of them is evaluated before rows travel must
not change the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db.models import (
    BooleanField,
    Case,
    Count,
    Exists,
    ExpressionWrapper,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Q,
    QuerySet,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, Length, NullIf, Rank
from django.db.models.lookups import Exact, GreaterThan, IsNull

from tests.gathered_world import world_on
from tests.shop.models import Customer, Line, Order
from tests.two_sides import LAYOUTS, answers

pytestmark = [pytest.mark.django_db(databases="__all__"), pytest.mark.slow]

Rows = QuerySet[Any]
Of = Callable[[Any], Rows]


@pytest.fixture(scope="module", autouse=True)
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), world_on(LAYOUTS["none"]):
        yield


def named(rows: Rows, negated: bool, condition: Q) -> Rows:
    """Filter by a condition that an annotation gives a name."""
    wrapped = ExpressionWrapper(condition, output_field=BooleanField())
    return rows.annotate(c=wrapped).filter(c=not negated)


def related(rows: Rows, name: str, **condition: Any) -> Rows:
    return rows.annotate(kept=FilteredRelation(name, condition=Q(**condition)))


#: Of orders.
CONDITIONS: dict[str, Callable[[Rows], Rows]] = {
    "or over a join": lambda o: o.filter(Q(customer__name="b1") | Q(quantity=1)),
    "or over two joins": lambda o: o.filter(Q(customer__region__name="N1") | Q(lines__amount=2)),
    "or of nothing": lambda o: o.filter(Q(lines__amount__isnull=True) | Q(lines__amount=2)),
    "xor": lambda o: o.filter(Q(customer__name="b1") ^ Q(lines__product="p1")),
    "not xor": lambda o: o.filter(~(Q(customer__name__gt="b") ^ Q(quantity=1))),
    "not or": lambda o: o.filter(~(Q(customer__name="b1") | Q(quantity=1))),
    "all rows, or some by joins": lambda o: o | o.filter(tags__label="blue", customer__country__code="FI"),
    "some by joins, and some others": lambda o: o.filter(tags__label="blue") ^ o.filter(customer__country__code="FI"),
    "one related row": lambda o: o.filter(lines__amount=1, lines__product="p1"),
    "two related rows": lambda o: o.filter(lines__amount=1).filter(lines__product="p0"),
    "exclude one related row": lambda o: o.exclude(lines__amount=1, lines__product="p1"),
    "exclude by two columns": lambda o: o.exclude(lines__amount=F("quantity")),
    "exclude by two joins": lambda o: o.exclude(lines__product=F("customer__name")),
    "exclude those with none": lambda o: o.exclude(lines__isnull=True),
    "exclude many to many": lambda o: o.filter(customer__name__gt="b").exclude(tags__label="blue"),
    "there and back": lambda o: o.filter(tags__orders__quantity=F("quantity")),
    "brothers": lambda o: o.exclude(customer__orders__status="paid"),
    "across a reference table": lambda o: o.filter(customer__country__customers__name="b1"),
    "exclude across a reference table": lambda o: o.exclude(customer__country__customers__name="b1"),
    "across a global table": lambda o: o.filter(customer__region__customers__orders__status="paid", status="new"),
    "exclude by a global table": lambda o: o.exclude(customer__region__name="N1"),
    "a column of two tables": lambda o: o.annotate(c=Coalesce("customer__name", "status")).filter(c="new"),
    "null where it is equal": lambda o: o.annotate(c=NullIf("status", Value("new"))).filter(c__isnull=True),
    "case": lambda o: o.annotate(
        c=Case(When(customer__name="b1", then="quantity"), When(lines__amount=1, then=Value(5)))
    ).filter(c__isnull=True),
    "a named condition": lambda o: named(o, False, Q(customer__name__gt="b") | Q(quantity=2)),
    "a named condition, not met": lambda o: named(o, True, Q(customer__name__gt="b")),
    "a related row with a condition": lambda o: related(o, "lines", lines__amount=1).filter(
        Q(kept__product="p1") | Q(quantity=1)
    ),
    "no related row with a condition": lambda o: related(o, "customer", customer__name="b1").filter(
        kept__joined__isnull=True
    ),
    "no global row with a condition": lambda o: related(o, "customer__region", customer__region__name="N1").filter(
        kept__isnull=True
    ),
    "a related row with a condition of this": lambda o: related(o, "lines", lines__amount=F("quantity")).exclude(
        kept__product="p1"
    ),
    "groups": lambda o: o.annotate(c=Count("lines")).filter(Q(c=0) | Q(customer__name="b1")),
    "groups of some": lambda o: o.filter(lines__amount__gt=0).annotate(c=Count("lines")).filter(c=1),
    "a list with columns": lambda o: o.filter(quantity__in=[F("lines__amount"), 2]),
    "a range of columns": lambda o: o.filter(tenant_id__range=(F("quantity"), F("lines__amount") + 2)),
    "a comparison": lambda o: o.filter(GreaterThan(F("lines__amount"), F("quantity"))),
    "a comparison of values": lambda o: o.filter(Exact(Value(1), Value(1)), IsNull(F("customer__joined"), True)),
}


def of_customer(rows: Rows) -> Rows:
    return rows.filter(customer=OuterRef("pk"))


def counted(rows: Rows) -> Subquery:
    """The number of orders whose quantity is the length of the customer's name."""
    alike = rows.filter(quantity=Length(OuterRef("name")) - 1).order_by().values("quantity")
    return Subquery(alike.annotate(number=Count("pk", distinct=True)).values("number")[:1])


#: What is asked: with the orders that meet a condition, and with a function that gives all rows of a model.
PLACES: dict[str, Callable[[Rows, Of], Any]] = {
    "beside a window": lambda o, of: o.annotate(w=Window(Count("pk"), partition_by="status")).values_list("pk", "w"),
    "below a window's filter": lambda o, of: (
        o.annotate(w=Window(Rank(), partition_by="status", order_by="-total")).filter(w__lte=2).values_list("pk", "w")
    ),
    "merged": lambda o, of: o.values_list("pk"),
    "aggregated": lambda o, of: [o.aggregate(Count("pk"), Count("quantity", distinct=True), Sum("total"))],
    "grouped by a global column": lambda o, of: (
        o.order_by().values("customer__region__name").annotate(n=Count("pk"), m=Max("quantity"))
    ),
    "in": lambda o, of: of(Line).filter(amount__in=o.values("quantity")).values_list("pk"),
    "not in": lambda o, of: of(Line).exclude(amount__in=o.values("quantity")).values_list("pk"),
    "not exists": lambda o, of: of(Line).filter(~Exists(o.filter(quantity=OuterRef("amount")))).values_list("pk"),
    "exists or": lambda o, of: (
        of(Customer).filter(Q(Exists(o.filter(status=OuterRef("name")))) | Exists(of_customer(o))).values_list("pk")
    ),
    "a number": lambda o, of: of(Customer).annotate(x=counted(o)).values_list("pk", "x"),
    "below a slice": lambda o, of: (
        of(Line).filter(order__in=o.order_by("-total", "pk").values("pk")[1:6]).values_list("pk")
    ),
    "a part of a union": lambda o, of: o.values_list("status", "quantity").union(
        of(Line).values_list("product", "amount")
    ),
    "what a difference leaves": lambda o, of: of(Order).values_list("pk").difference(o.values_list("pk")),
}


def in_some_order(answer: Any) -> list[str]:
    return sorted(map(repr, answer))


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("condition", CONDITIONS)
def test_as_one_database(condition: str, place: str) -> None:
    def ask(of: Of) -> list[str]:
        return in_some_order(PLACES[place](CONDITIONS[condition](of(Order).order_by()), of))

    found, expected = answers(ask)
    assert found == expected

"""
Many shapes of statements over gathered rows: conditions that are pushed down and those that must not be, joins of every
kind, nested subqueries, combined queries, windows in all clauses, global models.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    FilteredRelation,
    Max,
    OuterRef,
    Q,
    Subquery,
    Sum,
    Value,
    When,
    Window,
)
from django.db.models.functions import Coalesce, Concat, JSONObject, Rank, RowNumber, TruncMonth

from tests import servers
from tests.gathered_world import world_on
from tests.shop.models import Customer, Ledger, Line, Order, PaidOrder, Region, Tag
from tests.two_sides import LAYOUTS, REFERENCE, answers, cluster_side

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS, autouse=True)
def layout(request, django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), world_on(LAYOUTS[request.param]):
        yield request.param


def numbered(**options: Any) -> Window:
    return Window(RowNumber(), order_by=F("pk").asc(), **options)


def regions(of: Any) -> Any:
    return Region.objects.all() if of is cluster_side else Region.objects.using(REFERENCE)


QUESTIONS: dict[str, Any] = {
    "xor": lambda of: (
        of(Order)
        .annotate(w=numbered())
        .filter(Q(status="paid") ^ Q(customer__name="b1"))
        .order_by("pk")
        .values_list("pk", "w")
    ),
    "pk in []": lambda of: of(Order).annotate(w=numbered()).filter(pk__in=[]).values_list("pk"),
    "or pk in []": lambda of: (
        of(Order).annotate(w=numbered()).filter(Q(pk__in=[]) | Q(status="paid")).order_by("pk").values_list("pk", "w")
    ),
    "F two tables": lambda of: (
        of(Line).annotate(w=numbered()).filter(amount__lt=F("order__quantity")).order_by("pk").values_list("pk", "w")
    ),
    "icontains": lambda of: (
        of(Order)
        .annotate(w=numbered())
        .filter(customer__name__icontains="B", status__iexact="PAID")
        .order_by("pk")
        .values_list("pk", "w")
    ),
    "case": lambda of: (
        of(Order)
        .annotate(w=numbered(), c=Case(When(customer__name__gt="b", then=Value(1)), default=Value(0)))
        .filter(c=1)
        .order_by("pk")
        .values_list("pk", "w", "c")
    ),
    "filtered relation": lambda of: (
        of(Order)
        .annotate(l=FilteredRelation("lines", condition=Q(lines__amount__gte=1)))
        .annotate(w=Window(Count("l"), partition_by=F("status")))
        .order_by("pk", "l__amount")
        .values_list("pk", "w", "l__amount")
    ),
    "filtered relation inner": lambda of: (
        of(Order)
        .annotate(l=FilteredRelation("lines", condition=Q(lines__amount__gte=1)))
        .filter(l__product="p1")
        .annotate(w=numbered())
        .order_by("pk", "w")
        .values_list("pk", "w")
    ),
    "exclude m2m": lambda of: (
        of(Order).annotate(w=numbered()).exclude(tags__label="red").order_by("pk").values_list("pk", "w")
    ),
    "exclude rev": lambda of: (
        of(Customer).annotate(w=numbered()).exclude(orders__status="paid").order_by("pk").values_list("pk", "w")
    ),
    "exclude rev deep": lambda of: (
        of(Customer).annotate(w=numbered()).exclude(orders__lines__amount=1).order_by("pk").values_list("pk", "w")
    ),
    "isnull rev": lambda of: (
        of(Customer).annotate(w=numbered()).filter(orders__isnull=True).order_by("pk").values_list("pk", "w")
    ),
    "proxy": lambda of: of(PaidOrder).annotate(w=numbered()).order_by("pk").values_list("pk", "w"),
    "sub in order by": lambda of: (
        of(Order)
        .order_by(
            Subquery(of(Line).filter(amount=OuterRef("quantity")).order_by("pk").values("pk")[:1]).asc(
                nulls_first=True
            ),
            "pk",
        )
        .values_list("pk")
    ),
    "sub in aggregate filter": lambda of: (
        of(Order)
        .values("status")
        .annotate(n=Count("pk", filter=Q(quantity__in=of(Line).values("amount"))))
        .order_by("status")
    ),
    "nested sub": lambda of: (
        of(Order)
        .filter(quantity__in=of(Line).filter(product__in=of(Line).filter(amount=2).values("product")).values("amount"))
        .order_by("pk")
        .values_list("pk")
    ),
    "grandparent": lambda of: (
        of(Order)
        .filter(
            Exists(
                of(Line).filter(
                    Exists(of(Order).filter(quantity=OuterRef("amount"), status=OuterRef(OuterRef("status"))))
                )
            )
        )
        .order_by("pk")
        .values_list("pk")
    ),
    "exists annot": lambda of: (
        of(Order).annotate(e=Exists(of(Line).filter(amount=OuterRef("quantity")))).order_by("pk").values_list("pk", "e")
    ),
    "not exists": lambda of: (
        of(Order).filter(~Exists(of(Line).filter(amount=OuterRef("quantity")))).order_by("pk").values_list("pk")
    ),
    "sub union": lambda of: (
        of(Order)
        .filter(status__in=of(Order).values("status").union(of(Line).values("product")))
        .order_by("pk")
        .values_list("pk")
    ),
    "sub slice": lambda of: (
        of(Order).filter(pk__in=of(Order).order_by("-total", "pk").values("pk")[:7]).order_by("pk").values_list("pk")
    ),
    "sub distinct": lambda of: (
        of(Order).filter(total__in=of(Line).distinct().values("amount")).order_by("pk").values_list("pk")
    ),
    "sub aggregate": lambda of: (
        of(Order)
        .filter(
            total__gt=Subquery(
                of(Order).order_by().annotate(one=Value(1)).values("one").annotate(a=Avg("total")).values("a")
            )
        )
        .order_by("pk")
        .values_list("pk")
    ),
    "union none": lambda of: (
        of(Order).values_list("status").union(of(Order).none().values_list("status")).order_by("status")
    ),
    "none union": lambda of: (
        of(Order).none().values_list("status").union(of(Order).values_list("status")).order_by("status")
    ),
    "union of union": lambda of: (
        of(Order)
        .values_list("status")
        .union(of(Line).values_list("product"))
        .union(of(Tag).values_list("label"))
        .order_by("status")
    ),
    "union first": lambda of: of(Order).union(of(Order).filter(status="paid")).order_by("-total", "id").first(),
    "union slice": lambda of: (
        of(Order)
        .values_list("status", "total")
        .union(of(Line).values_list("product", "amount"))
        .order_by("status", "total")[2:6]
    ),
    "union sliced part": lambda of: (
        of(Order).order_by("total", "pk")[:3].union(of(Order).order_by("-total", "pk")[:3]).order_by("id")
    ),
    "union len": lambda of: len(of(Order).union(of(Order).filter(status="paid"))),
    "intersection exists": lambda of: of(Order).values("quantity").intersection(of(Line).values("amount")).exists(),
    "difference count": lambda of: of(Order).values("quantity").difference(of(Line).values("amount")).count(),
    "distinct on slice": lambda of: of(Order).order_by("status", "-total", "pk").distinct("status")[1:3],
    "distinct on first": lambda of: of(Order).order_by("status", "-total", "pk").distinct("status").first(),
    "distinct on last": lambda of: of(Order).order_by("status", "-total", "pk").distinct("status").last(),
    "window count": lambda of: of(Order).annotate(w=numbered()).filter(w__lte=5).count(),
    "window exists": lambda of: of(Order).annotate(w=numbered()).filter(w__lte=5).exists(),
    "window agg": lambda of: of(Order).annotate(w=numbered()).filter(w__lte=5).aggregate(Sum("w"), Max("total")),
    "window agg unfiltered": lambda of: of(Order).annotate(w=numbered()).aggregate(Sum("w")),
    "window slice": lambda of: of(Order).annotate(w=numbered()).order_by("-w")[2:5].values_list("w", "pk"),
    "window in order": lambda of: (
        of(Order).order_by(Window(Sum("total"), partition_by=F("status")).desc(), "pk").values_list("pk")
    ),
    "window alias": lambda of: of(Order).alias(w=numbered()).filter(w__lte=4).order_by("pk").values_list("pk"),
    "agg slice default": lambda of: (
        of(Order)
        .order_by("total", "pk")[:4]
        .aggregate(x=Sum("weight", default=7), y=Count("pk", filter=Q(status="paid")), z=Sum(F("total") * 2))
    ),
    "agg distinct": lambda of: (
        of(Order)
        .values("status", "quantity")
        .distinct()
        .aggregate(n=Count("quantity", distinct=True), s=Sum("quantity"))
    ),
    "select related": lambda of: [
        (o.pk, o.customer and o.customer.region and o.customer.region.name)
        for o in of(Order).select_related("customer__region").order_by("pk")
    ],
    "select related of one key": lambda of: [
        (o.pk, o.customer and o.customer.region and o.customer.region.name)
        for o in of(Order).filter(tenant_id=3).select_related("customer__region").order_by("pk")
    ],
    "one key in the order of a global name": lambda of: (
        of(Order).filter(tenant_id=3).order_by("customer__region__name", "pk").first()
    ),
    "one key, grouped by a global name": lambda of: (
        of(Order)
        .filter(tenant_id=3)
        .values_list("customer__region__name")
        .annotate(n=Count("pk"))
        .order_by("customer__region__name")
    ),
    "select related both": lambda of: [
        (o.pk, o.customer and o.customer.country and o.customer.country.code, o.customer and o.customer.region_id)
        for o in of(Order).select_related("customer__region", "customer__country").order_by("pk")
    ],
    "only": lambda of: [(o.pk, o.status, o.w) for o in of(Order).annotate(w=numbered()).only("status").order_by("pk")],
    "defer": lambda of: [(o.pk, o.total, o.w) for o in of(Order).annotate(w=numbered()).defer("status").order_by("pk")],
    "prefetch": lambda of: [
        (o.pk, sorted(line.amount for line in o.lines.all()), o.w)
        for o in of(Order).annotate(w=numbered()).prefetch_related("lines").order_by("pk")
    ],
    "dates": lambda of: of(Order).filter(quantity__in=of(Line).values("amount")).datetimes("created", "month"),
    "earliest": lambda of: of(Order).filter(quantity__in=of(Line).values("amount")).earliest("total", "pk"),
    "in_bulk": lambda of: sorted(map(str, of(Order).filter(quantity__in=of(Line).values("amount")).in_bulk())),
    "reverse": lambda of: of(Order).annotate(w=numbered()).order_by("w").reverse().values_list("pk", "w"),
    "iterator": lambda of: list(
        of(Order).annotate(w=numbered()).order_by("w").values_list("pk", "w").iterator(chunk_size=5)
    ),
    "global sub filter": lambda of: (
        of(Customer).filter(region__in=regions(of).filter(name__startswith="n")).order_by("pk").values_list("pk")
    ),
    "global sub annot": lambda of: (
        of(Customer)
        .annotate(r=Subquery(regions(of).filter(pk=OuterRef("region_id")).values("name")))
        .order_by("pk")
        .values_list("pk", "r")
    ),
    "global exists": lambda of: (
        of(Order)
        .filter(Exists(regions(of).filter(pk=OuterRef("customer__region_id"), name__gt="n")))
        .order_by("pk")
        .values_list("pk")
    ),
    "global order slice": lambda of: (
        of(Order).order_by(F("customer__region__name").desc(nulls_last=True), "pk")[3:9].values_list("pk")
    ),
    "global exclude": lambda of: of(Customer).exclude(region__name="N1").order_by("pk").values_list("pk"),
    "global count": lambda of: of(Order).filter(customer__region__name__gte="n").count(),
    "global group": lambda of: (
        of(Order)
        .values("customer__region__name", "customer__country__code")
        .annotate(s=Sum("total"), n=Count("pk"))
        .order_by("customer__region__name", "customer__country__code")
    ),
    "reference rev": lambda of: (
        of(Customer).annotate(w=numbered()).filter(country__isnull=True).order_by("pk").values_list("pk", "w")
    ),
    "reference inner": lambda of: (
        of(Order).annotate(w=numbered()).filter(customer__country__name="Suomi").order_by("pk").values_list("pk", "w")
    ),
    "group window": lambda of: (
        of(Order)
        .values("status")
        .annotate(n=Count("pk"))
        .annotate(w=Window(Rank(), order_by=F("n").desc()))
        .order_by("status")
    ),
    "group filter sub": lambda of: (
        of(Order)
        .filter(quantity__in=of(Line).values("amount"))
        .values("status")
        .annotate(n=Count("pk"), m=Avg("total"))
        .filter(n__gt=1)
        .order_by("status")
    ),
    "outer null": lambda of: (
        of(Order)
        .annotate(w=numbered())
        .filter(Q(customer__name="b1") | Q(customer__isnull=True))
        .order_by("pk")
        .values_list("pk", "w")
    ),
    "coalesce join": lambda of: (
        of(Order)
        .annotate(w=numbered(), n=Coalesce("customer__name", Value("none")))
        .filter(n="none")
        .order_by("pk")
        .values_list("pk", "w")
    ),
    "concat": lambda of: (
        of(Order)
        .annotate(w=numbered(), n=Concat("status", Value("-"), "customer__name"))
        .filter(n__contains="-")
        .order_by("pk")
        .values_list("pk", "n")
    ),
    "ledger": lambda of: (
        of(Ledger)
        .annotate(w=Window(RowNumber(), order_by=["tenant_id", "number"]))
        .filter(number__lt=2)
        .order_by("w")
        .values_list("tenant_id", "number", "w")
    ),
    "ledger rows": lambda of: (
        of(Ledger).annotate(w=Window(RowNumber(), order_by=["tenant_id", "number"])).filter(number__lt=2).order_by("w")
    ),
    "m2m through": lambda of: (
        of(Order).filter(tags__label="red").annotate(w=numbered()).order_by("pk").values_list("pk", "w")
    ),
    "two readers": lambda of: (
        of(Order)
        .filter(status="paid", total__in=of(Order).filter(status="new").values("total"))
        .order_by("pk")
        .values_list("pk")
    ),
    "self correlated": lambda of: (
        of(Order)
        .filter(Exists(of(Order).filter(total=OuterRef("total"), quantity=1).exclude(pk=OuterRef("pk"))))
        .order_by("pk")
        .values_list("pk")
    ),
    "json": lambda of: (
        of(Order).annotate(j=JSONObject(a="total", b="status"), w=numbered()).order_by("pk").values_list("j", "w")
    ),
    "trunc": lambda of: (
        of(Order)
        .annotate(m=TruncMonth("created"), w=numbered())
        .filter(m__isnull=False)
        .order_by("pk")
        .values_list("m", "w")
    ),
    "extract": lambda of: (
        of(Order).annotate(w=numbered()).filter(created__day__gt=3).order_by("pk").values_list("created", "w")
    ),
    "get": lambda of: of(Order).annotate(w=numbered()).filter(w=1).get(),
    "contains": lambda of: (
        of(Order)
        .filter(quantity__in=of(Line).values("amount"))
        .contains(of(Order).filter(quantity=1).order_by("pk").first())
    ),
    "values shadow": lambda of: (
        of(Order).annotate(name=F("customer__name"), w=numbered()).order_by("pk").values("name", "w")
    ),
}
#: What SQLite, or Django on it, does not do on one database either.
UNSUPPORTED = {"union sliced part", "distinct on slice", "distinct on first", "distinct on last"}
if servers.engine == "sqlite":
    QUESTIONS = {name: ask for name, ask in QUESTIONS.items() if name not in UNSUPPORTED}


@pytest.mark.parametrize("question", QUESTIONS)
def test_as_one_database(question):
    found, expected = answers(QUESTIONS[question])
    assert found == expected

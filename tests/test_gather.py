"""
What no other tier answers: windows, set operations, subqueries and joins over other buckets, DISTINCT ON.

Each is asked of the cluster and of one database with all rows.
"""

from __future__ import annotations

import pytest
from django.db.models import Avg, Count, Exists, F, Func, IntegerField, Max, OuterRef, Q, Subquery, Sum, Window
from django.db.models.functions import Lag, Lower, Rank, RowNumber

from tests import servers
from tests.gathered_world import world_on
from tests.shop.models import Customer, Line, Order, Region, Tag
from tests.two_sides import LAYOUTS, answers

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS, autouse=True)
def layout(request, django_db_setup, django_db_blocker):
    with django_db_blocker.unblock(), world_on(LAYOUTS[request.param]):
        yield request.param


ranked = Window(Rank(), partition_by=F("status"), order_by=[F("total").desc(), F("pk").asc()])
QUESTIONS = {
    "window": lambda of: of(Order).annotate(place=ranked).order_by("pk"),
    "window of values": lambda of: of(Order).annotate(p=ranked).order_by("pk").values_list("status", "p"),
    "window over filtered rows": lambda of: (
        of(Order).filter(quantity__gt=1, customer__name__gt="b").annotate(place=ranked).order_by("place", "pk")
    ),
    "window over groups": lambda of: (
        of(Order)
        .values("status")
        .annotate(n=Count("pk"), place=Window(Rank(), order_by=F("n").desc()))
        .order_by("n", "status")
    ),
    "filter by a window": lambda of: (
        of(Order)
        .annotate(place=Window(RowNumber(), partition_by=F("tenant_id"), order_by=F("pk").asc()))
        .filter(place__lte=2)
        .order_by("pk")
    ),
    "lag": lambda of: (
        of(Order).annotate(before=Window(Lag("total"), order_by=F("pk").asc())).order_by("pk").values("before")
    ),
    "windows within a bucket": lambda of: (
        of(Order)
        .annotate(p=Window(Sum("total"), partition_by=["tenant_id", "status"], order_by="pk"))
        .order_by("-p", "pk")[3:12]
    ),
    "windows and aggregates": lambda of: (
        of(Order).values("status").annotate(n=Count("pk"), s=Window(Rank(), order_by="n")).order_by("status")
    ),
    "union": lambda of: (
        of(Order)
        .values_list("status", "total")
        .union(of(Line).values_list("product", "amount"))
        .order_by("status", "total")
    ),
    "union all": lambda of: (
        of(Order).values_list("status").union(of(Order).values_list("status"), all=True).order_by("status")
    ),
    "intersection": lambda of: (
        of(Order)
        .filter(quantity__gt=1)
        .values_list("tenant_id")
        .intersection(of(Line).values_list("tenant_id"))
        .order_by("tenant_id")
    ),
    "difference": lambda of: of(Order).difference(of(Order).filter(status="paid")).order_by("id"),
    "union of instances": lambda of: of(Order).filter(status="paid").union(of(Order).filter(quantity=1)).order_by("id"),
    "count of a union": lambda of: of(Order).values("status").union(of(Line).values("product")).count(),
    "exists of a union": lambda of: of(Order).values("status").union(of(Line).values("product")).exists(),
    "foreign IN": lambda of: of(Order).filter(total__in=of(Line).values("amount")).order_by("pk"),
    "foreign NOT IN": lambda of: of(Order).exclude(quantity__in=of(Line).values("amount")).order_by("pk"),
    "foreign Exists": lambda of: (
        of(Order).filter(Exists(of(Line).filter(amount=OuterRef("quantity"), product="p1"))).order_by("pk")
    ),
    "foreign Subquery": lambda of: (
        of(Order)
        .annotate(most=Subquery(of(Line).order_by("-amount", "pk").values("amount")[:1]))
        .order_by("pk")
        .values_list("most", "total")
    ),
    "above the average of all": lambda of: (
        of(Order)
        .annotate(
            average=Subquery(of(Order).order_by().values(one=F("bucket") * 0).annotate(a=Avg("total")).values("a"))
        )
        .filter(total__gt=F("average"))
        .order_by("pk")
    ),
    "aggregate over a foreign Exists": lambda of: (
        of(Order).filter(Exists(of(Line).filter(amount=OuterRef("quantity")))).aggregate(n=Count("pk"), s=Sum("total"))
    ),
    "global subquery": lambda of: (
        of(Customer).filter(region__in=Region.objects.filter(name__startswith="n").values("pk")).order_by("pk")
        if of(Customer).db == "default"
        else of(Customer)
        .filter(region__in=Region.objects.using("reference").filter(name__startswith="n"))
        .order_by("pk")
    ),
    "global join": lambda of: of(Customer).filter(region__name__gt="a").order_by("region__name", "pk"),
    "global outer join": lambda of: (
        of(Customer).order_by(F("region__name").asc(nulls_first=True), "pk").values_list("region__name", "name")
    ),
    "global select_related": lambda of: [
        (each.name, each.region and each.region.name) for each in of(Customer).select_related("region").order_by("pk")
    ],
    "groups by a global column": lambda of: (
        of(Customer).values("region__name").annotate(n=Count("pk")).order_by("region__name")
    ),
    "distinct on": lambda of: of(Order).distinct("status").order_by("status", "total", "pk"),
    "distinct on a join": lambda of: (
        of(Order).distinct("customer__name").order_by("customer__name", "-total", "pk").values_list("pk")
    ),
    "count of distinct on": lambda of: of(Order).distinct("status").count(),
    "aggregate over a slice": lambda of: (
        of(Order).order_by("total", "pk")[3:20].aggregate(s=Sum("total"), m=Max("total"))
    ),
    "aggregate over distinct": lambda of: of(Order).values("status", "total").distinct().aggregate(s=Sum("total")),
    "aggregate over groups": lambda of: (
        of(Order).values("status").annotate(n=Count("pk")).aggregate(most=Max("n"), mean=Avg("n"))
    ),
    "aggregate that Django does not know": lambda of: (
        of(Order).annotate(n=Func("quantity", function="MAX", output_field=IntegerField())).values("n")
    ),
    "aggregate over windows": lambda of: of(Order).annotate(p=ranked).filter(p=1).aggregate(s=Sum("total")),
    "isnull by a left join": lambda of: (
        of(Order).annotate(place=ranked).filter(customer__isnull=True).order_by("pk").values("place")
    ),
    "or over a join": lambda of: (
        of(Order)
        .annotate(place=ranked)
        .filter(Q(customer__name="b1") | Q(status="paid"))
        .order_by("pk")
        .values("place")
    ),
    "not over a join": lambda of: (
        of(Order).annotate(place=ranked).exclude(lines__product="p1").order_by("pk").values("place", "pk")
    ),
    "many to many": lambda of: (
        of(Tag).annotate(n=Window(Count("orders"), partition_by=F("tenant_id"))).order_by("pk", "n")
    ),
    "groups by all columns of rows that travel": lambda of: (
        of(Order).filter(quantity__in=of(Line).values("amount")).annotate(n=Count("lines")).order_by("pk")
    ),
    "reference join": lambda of: (
        of(Order).annotate(place=ranked).filter(customer__country__code="FI").order_by("pk").values("place")
    ),
    "expression": lambda of: (
        of(Customer).annotate(low=Lower("name"), n=Window(RowNumber(), order_by=[Lower("name"), F("pk")])).order_by("n")
    ),
}

if servers.engine == "sqlite":
    QUESTIONS = {name: ask for name, ask in QUESTIONS.items() if "distinct on" not in name}


@pytest.mark.parametrize("question", QUESTIONS)
def test_as_one_database(question):
    found, expected = answers(QUESTIONS[question])
    assert found == expected
    assert found

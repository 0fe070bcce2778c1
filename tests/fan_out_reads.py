"""
What is asked of both sides, by name; ``of`` gives the queryset of a model on the side that is asked.
"""

from __future__ import annotations

from django.db import connections
from django.db.models import (
    Avg,
    Case,
    Count,
    Exists,
    F,
    JSONField,
    Max,
    Min,
    OuterRef,
    Q,
    StdDev,
    Subquery,
    Sum,
    Value,
    When,
)
from django.db.models.functions import Coalesce, Collate, Lower, TruncDay, Upper

from tests.shop.models import Customer, Ledger, Line, Order

PG = connections["default"].vendor == "postgresql"
PARTS = ("quantity", "total")
#: JSON's null is a value, and not NULL.
JSON = Case(
    When(status="paid", then=Value(None, JSONField())),
    When(status="new", then=None),
    When(status="sent", then=Value({"a": [1, None]}, JSONField())),
    default=Value(1.0, JSONField()),
    output_field=JSONField(),
)

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
    "a composite key, other order": lambda of: of(Ledger).order_by("number", "-tenant_id").values_list("pk", "text"),
    "a composite key in a slice": lambda of: of(Ledger).order_by("tenant_id", "number").values("text", "pk")[2:5],
    "count of composite keys": lambda of: of(Ledger).values_list("pk", "number")[2:5].count(),
    "count of ordered composite keys": lambda of: of(Ledger).order_by("-pk")[2:7].count(),
    "count of different composite keys": lambda of: of(Ledger).distinct().order_by("pk")[2:7].count(),
    "distinct rows by a composite key": lambda of: of(Ledger).distinct().order_by("-pk"),
    "a composite key, ordered by an expression": lambda of: (
        of(Ledger).order_by(F("number") * -1, "-tenant_id").values("pk", "text")
    ),
    # Django counts expressions in ORDER BY, where the database counts columns: both sides sort by the number.
    "order by what stands beside a composite key": lambda of: (
        of(Ledger).values_list("pk", "tenant_id").order_by("-tenant_id", "pk")
    ),
    "distinct, ordered by a composite key": lambda of: (
        of(Ledger).values_list("number", "text").distinct().order_by("-pk", "bucket")
    ),
    "group by a composite key": lambda of: of(Ledger).annotate(n=Count("text")).order_by("-number", "pk"),
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
    "distinct values of nothing": lambda of: repr(
        of(Order)
        .filter(total=-1)
        .aggregate(
            n=Count("status", distinct=True),
            d=Sum("total", default=0),
            x=Sum("quantity", default=Value(5) * 2),
        )
    ),
    "counts of nothing beside different values": lambda of: (
        of(Order).filter(total=-1).aggregate(n=Count("id"), all=Count("*"), d=Count("status", distinct=True))
    ),
    "sums of nothing": lambda of: (
        of(Order).filter(total=-1).aggregate(n=Count("id"), s=Sum("total"), q=Sum("quantity"))
    ),
    "aggregate of an empty IN": lambda of: (
        of(Order).filter(total__in=[]).aggregate(n=Count("id"), d=Sum("total", default=5))
    ),
    "aggregate with filter": lambda of: of(Order).aggregate(
        paid=Count("id", filter=Q(status="paid")), s=Sum("total", filter=Q(quantity=2), default=0)
    ),
    "aggregate with an empty IN": lambda of: of(Order).aggregate(n=Count("id"), s=Sum("total", filter=Q(id__in=[]))),
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
    "group by JSON": lambda of: sorted(map(repr, of(Order).values(x=JSON).annotate(n=Count("id"), t=Sum("total")))),
    "HAVING beside JSON": lambda of: sorted(
        map(repr, of(Order).values(x=JSON).annotate(n=Count("id")).filter(n__gt=12).values_list("x", "n"))
    ),
    "count of different JSON": lambda of: of(Order).aggregate(n=Count(JSON, distinct=True)),
    "count of different JSON in groups": lambda of: (
        of(Order).values("quantity").annotate(n=Count(JSON, distinct=True)).order_by("quantity")
    ),
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

"""
What needs rows of all shards in one place: windows, set operations, DISTINCT ON, and aggregates over what spans shards.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.db.models import Avg, Count, F, Max, Min, QuerySet, StdDev, Sum, Window
from django.db.models.functions import FirstValue, Lag, Ntile, Rank, RowNumber

from tests.differential.programs import Read

WINDOWS: dict[str, Callable[[], Window]] = {
    "rank": lambda: Window(Rank(), partition_by="status", order_by=[F("total").desc(), "pk"]),
    "row number": lambda: Window(RowNumber(), partition_by="quantity", order_by="pk"),
    "lag": lambda: Window(Lag("total"), order_by=[F("created").asc(nulls_first=True), "pk"]),
    "running sum": lambda: Window(Sum("total"), partition_by="customer__name", order_by="pk"),
    "ntile": lambda: Window(Ntile(3), order_by="pk"),
    "first value": lambda: Window(FirstValue("customer__name"), partition_by="status", order_by=["-total", "pk"]),
    "average": lambda: Window(Avg("quantity"), partition_by=["status", "customer__country__code"]),
}
#: The two sides of a set operation differ by this.
OTHERS: dict[str, dict[str, Any]] = {
    "union": {"quantity__gte": 1},
    "intersection": {"total__gt": 2},
    "difference": {"quantity__isnull": True},
}
COLUMNS = ("status", "quantity", "total", "weight", "tenant_id")


def answer(program: Read, rows: QuerySet[Any]) -> Any:
    """Return the answer of a program of one of these shapes to the rows of one side."""
    return _SHAPES[program.shape](program, rows)


def _window(program: Read, rows: QuerySet[Any]) -> Any:
    rows = rows.annotate(**{f"w{n}": WINDOWS[name]() for n, name in enumerate(program.windows)})
    return list(_sliced(program, rows.order_by(*program.fields, "pk").values_list("pk", "w0", *program.fields)))


def _filtered_window(program: Read, rows: QuerySet[Any]) -> Any:
    rows = rows.annotate(w=WINDOWS["row number"]()).filter(w__lte=2)
    return list(_sliced(program, rows.order_by("pk").values_list("pk", "w", *program.fields)))


def _distinct_on(program: Read, rows: QuerySet[Any]) -> Any:
    ordered = rows.order_by(*program.fields, "-total", "pk").distinct(*program.fields)
    return list(_sliced(program, ordered.values_list("pk", *program.fields)))


def _combined(program: Read, rows: QuerySet[Any]) -> Any:
    names = COLUMNS[: len(program.fields)]
    rows = rows.order_by().values_list(*names)
    other = rows.filter(**OTHERS[program.shape])
    combined = getattr(rows, program.shape)(other)
    return list(_sliced(program, combined.order_by(*names)))


def _over_slice(program: Read, rows: QuerySet[Any]) -> Any:
    sliced = _sliced(program, rows.order_by(*program.fields, "pk"))
    return sliced.aggregate(
        n=Count("pk"), s=Sum("total"), a=Avg("quantity"), m=Min("status"), x=Max("created"), d=StdDev("quantity")
    )


def _over_distinct(program: Read, rows: QuerySet[Any]) -> Any:
    names = COLUMNS[: len(program.fields) + 1]
    return rows.order_by().values(*names).distinct().aggregate(n=Count("status"), s=Sum("quantity"), m=Max("status"))


def _over_groups(program: Read, rows: QuerySet[Any]) -> Any:
    groups = rows.order_by().values(*program.fields).annotate(n=Count("pk"), s=Sum("total"), q=Avg("quantity"))
    return groups.aggregate(most=Max("n"), least=Min("s"), mean=Avg("n"), number=Count("q"))


def _sliced(program: Read, rows: QuerySet[Any]) -> QuerySet[Any]:
    return rows[program.bounds[0] : sum(program.bounds)] if program.bounds else rows


_SHAPES: dict[str, Callable[[Read, QuerySet[Any]], Any]] = {
    "window": _window,
    "filter by a window": _filtered_window,
    "distinct on": _distinct_on,
    "union": _combined,
    "intersection": _combined,
    "difference": _combined,
    "over a slice": _over_slice,
    "over distinct rows": _over_distinct,
    "over groups": _over_groups,
}
SHAPES = frozenset(_SHAPES)

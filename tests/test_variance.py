"""Standard deviations and variances over several shards: those of one database, to the last digit where it is exact."""

from __future__ import annotations

import math
import sqlite3
import statistics
from collections import Counter
from collections.abc import Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import OperationalError, connections
from django.db.models import Avg, Count, F, FloatField, Q, StdDev, Sum, Value, Variance
from django.db.models.functions import Cast
from hypothesis import example, given
from hypothesis import strategies as st

from aggregator import variance
from tests.shop.models import Customer, Line, Order
from tests.two_sides import LAYOUTS, answers, cluster_side, plain, reference_side, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")
#: Their squares have no digit left for what is different.
FAR = Cast("quantity", FloatField()) + Value(1e9)
KINDS = {
    "StdDev": StdDev,
    "StdDev of a sample": lambda *args, **options: StdDev(*args, sample=True, **options),
    "Variance": Variance,
    "Variance of a sample": lambda *args, **options: Variance(*args, sample=True, **options),
}


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield request.param


def known(of: Any) -> Any:
    """Without NULLs, of which Django's functions for SQLite make an error."""
    return of(Order).filter(quantity__isnull=False, weight__isnull=False)


READS = {
    "of whole numbers": lambda of, kind: known(of).aggregate(x=kind("quantity")),
    "of decimals": lambda of, kind: known(of).aggregate(x=kind("total")),
    "of floats": lambda of, kind: known(of).aggregate(x=kind("weight")),
    "of floats that differ little": lambda of, kind: known(of).aggregate(x=kind(FAR)),
    "of small floats": lambda of, kind: known(of).aggregate(x=kind(F("weight") * 1e-12)),
    "of great decimals": lambda of, kind: known(of).aggregate(x=kind(F("total") + Decimal("1e9"))),
    "of a wide range": lambda of, kind: known(of).aggregate(x=kind(F("total") * F("total") * 31337)),
    "of an expression with parameters": lambda of, kind: (
        known(of)
        .values("quantity")
        .annotate(x=kind(F("tenant_id") * 3 + 2, filter=Q(total__lt=2)))
        .order_by("quantity")
    ),
    "of equal values": lambda of, kind: known(of).filter(quantity=2).aggregate(x=kind("quantity"), y=kind("total")),
    "of nothing": lambda of, kind: of(Order).filter(total=-1).aggregate(x=kind("total"), y=kind("weight")),
    "of nothing, by default": lambda of, kind: of(Order).filter(total=-1).aggregate(x=kind("total", default=7)),
    "of what no filter holds for": lambda of, kind: of(Order).aggregate(
        x=kind("total", filter=Q(status="gone")), n=Count("id"), s=Sum("quantity")
    ),
    "in groups": lambda of, kind: (
        known(of)
        .values("quantity")
        .annotate(x=kind("total"), y=kind("tenant_id"), z=kind("weight"), n=Count("id"))
        .order_by("quantity")
    ),
    "in an expression": lambda of, kind: (
        known(of).values("quantity").annotate(x=kind("total") / Avg("total") + Count("id")).order_by("quantity")
    ),
    "HAVING": lambda of, kind: (
        known(of).values("quantity").annotate(x=kind("total")).filter(x__gt=Decimal("0.48")).order_by("quantity")
    ),
    "in the order": lambda of, kind: known(of).values("quantity").annotate(x=kind("total")).order_by("-x")[:2],
    "beside different values": lambda of, kind: (
        known(of).values("quantity").annotate(x=kind("total"), n=Count("status", distinct=True)).order_by("quantity")
    ),
    "beside different ids": lambda of, kind: known(of).aggregate(
        x=kind("lines__amount", filter=Q(lines__amount__gte=0)), n=Count("id", distinct=True)
    ),
    "over a join": lambda of, kind: of(Line).values("order__status").annotate(x=kind("amount")).order_by("x"),
    "over annotations": lambda of, kind: of(Order).annotate(n=Count("lines")).aggregate(x=kind("n"), a=Avg("n")),
}


def same(found: Any, expected: Any) -> bool:
    if isinstance(found, dict):
        return list(found) == list(expected) and all(same(found[name], expected[name]) for name in expected)
    if isinstance(found, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    if isinstance(found, float) and isinstance(expected, float):
        return math.isclose(found, expected, rel_tol=1e-9)
    return repr(found) == repr(expected)


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("read", READS.values(), ids=READS.keys())
def test_reads(read: Any, kind: Any) -> None:
    found, expected = answers(lambda of: read(of, kind))
    assert same(found, expected), (found, expected)


#: SQLite's functions, which are Django's, make errors of these.
ODD = {
    "of NULLs among others": lambda of, kind: of(Order).aggregate(x=kind("quantity"), y=kind("weight")),
    "of one value": lambda of, kind: of(Customer).filter(email="3@4").aggregate(x=kind("tenant_id")),
    "of NULLs alone": lambda of, kind: of(Order).filter(quantity=None).aggregate(x=kind("quantity")),
}


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("read", ODD.values(), ids=ODD.keys())
def test_odd_reads(read: Any, kind: Any) -> None:
    found, expected = (outcome(read, side, kind) for side in (cluster_side, reference_side))
    assert same(found, expected), (found, expected)


def outcome(read: Any, side: Any, kind: Any) -> Any:
    try:
        return plain(read(side, kind))
    except OperationalError as error:
        return str(error)


FINITE = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20)
NUMBERS = st.one_of(FINITE, st.integers(-9, 9), st.sampled_from(["NaN", "Infinity", "0.00", "1.50"]), st.none())
FUNCTIONS = ("VAR_POP", "VAR_SAMP", "STDDEV_POP", "STDDEV_SAMP")


@given(rows=st.lists(st.tuples(st.integers(0, 2), NUMBERS), min_size=1, max_size=12))
# The root of their variance, which PostgreSQL itself rounds once, ends in a 5 where it is rounded twice.
@example(rows=[(0, 0), (1, 1), (1, 929)])
def test_law(rows: list[tuple[int, Any]]) -> None:
    """However the rows are spread, the parts have the same answer as the whole, in digits as in value."""
    connection = connections["reference"]
    if connection.vendor == "sqlite":
        # Its numbers are floats, and its functions know neither NULL nor what is not finite.
        rows = [(part, float(value)) for part, value in rows if value not in {None, "NaN", "Infinity"}]
        assert not rows or in_memory(rows) == [statistic([value for _, value in rows]) for statistic in WHOLE]
        return
    values = ", ".join(["(%s, %s::numeric)"] * len(rows))
    partial = f"SELECT COUNT(x) c0, SUM(x) c1, SUM(x * x) c2 FROM (VALUES {values}) AS rows (part, x) GROUP BY part"
    found = ", ".join(f"{variance.of_numbers(name, 'p.c0', 'p.c1', 'p.c2')}::text" for name in FUNCTIONS)
    whole = ", ".join(f"{name}(x)::text" for name in FUNCTIONS)
    params = [each for row in rows for each in row]
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {found} FROM ({partial}) AS p", params)
        finished = cursor.fetchone()
        cursor.execute(f"SELECT {whole} FROM (VALUES {values}) AS rows (part, x)", params)
        assert finished == cursor.fetchone()


#: Of SQLite, in the order of FUNCTIONS; a sample of one has no variance.
WHOLE = (statistics.pvariance, statistics.pstdev)


def in_memory(rows: list[tuple[int, float]]) -> list[float]:
    memory = sqlite3.connect(":memory:")
    variance.register(memory)
    memory.execute("CREATE TABLE p (c0, c1)")
    memory.executemany("INSERT INTO p VALUES (?, ?)", Counter(value for _, value in rows).items())
    columns = ", ".join(variance.of_values(name, "c0", "c1") for name in ("VAR_POP", "STDDEV_POP"))
    try:
        return list(memory.execute(f"SELECT {columns} FROM p").fetchone())
    finally:
        memory.close()

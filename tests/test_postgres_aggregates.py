"""The aggregates of django.contrib.postgres over several shards; nothing else imports what needs psycopg."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import Count, F, Q
from django.db.models.functions import Coalesce

from tests import servers
from tests.aggregates import BitAnd, BitOr, BitXor
from tests.shop.models import Line, Order
from tests.two_sides import LAYOUTS, answers, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(request.param):
        yield request.param


#: Django 6.1 has these for SQLite, too.
READS: dict[str, Any] = {
    "bits": lambda of: (
        of(Order)
        .values("status")
        .annotate(
            x=BitAnd("tenant_id"), y=BitOr("quantity", filter=Q(total__lt=1)), z=BitXor(F("tenant_id") * 3, default=5)
        )
        .order_by("-z", "status")
    )
}
if BitAnd is None:
    READS = {}
if servers.engine == "postgresql":
    from django.contrib.postgres.aggregates import BoolAnd, BoolOr

    ALL = {"and": BitAnd, "or": BitOr, "xor": BitXor}
    READS |= {
        "of all rows": lambda of: of(Order).aggregate(
            every=BoolAnd(Q(total__gte=0)),
            some=BoolOr(Q(total__gt=9)),
            **{name: kind("quantity") for name, kind in ALL.items()},
        ),
        "of NULLs": lambda of: of(Order).filter(quantity=None).aggregate(x=BitXor("quantity"), y=BoolOr(Q(weight=-1))),
        "of nothing": lambda of: of(Order).filter(total=-1).aggregate(x=BoolAnd(Q(total=1)), y=BitXor("quantity")),
        "by default": lambda of: (
            of(Order).filter(total=-1).aggregate(x=BoolAnd(Q(total=1), default=True), y=BitOr("quantity", default=5))
        ),
        "with a filter": lambda of: (
            of(Order)
            .values("status")
            .annotate(
                x=BoolOr(Q(weight__gt=2), filter=Q(quantity=1)),
                y=BitXor("tenant_id", filter=Q(total__lt=1)),
                z=BitAnd("tenant_id", filter=Q(status="gone"), default=-1),
            )
            .order_by("status")
        ),
        "in groups": lambda of: (
            of(Order)
            .values("status")
            .annotate(x=BoolAnd(Q(weight__gt=1)), **{name: kind("tenant_id") for name, kind in ALL.items()})
            .order_by("status")
        ),
        "in an expression": lambda of: (
            of(Order)
            .values("quantity")
            .annotate(x=Coalesce(BitOr("quantity"), 0) * 10 + BitXor(F("tenant_id") + 8) + Count("id"))
            .order_by("quantity")
        ),
        "HAVING": lambda of: (
            of(Order).values("quantity").annotate(x=BoolOr(Q(weight__gt=5))).filter(x=True).order_by("quantity")
        ),
        "HAVING bits": lambda of: (
            of(Order).values("total").annotate(x=BitXor("tenant_id")).filter(x__gt=1).order_by("total")
        ),
        "in the order": lambda of: (
            of(Order).values("total").annotate(x=BitXor("tenant_id")).order_by("-x", "total")[:3]
        ),
        "beside different values": lambda of: of(Order).aggregate(
            x=BitXor("tenant_id"), y=BoolAnd(Q(total__gte=0)), n=Count("status", distinct=True)
        ),
        "over a join": lambda of: (
            of(Line).values("order__status").annotate(x=BitXor("amount")).order_by("order__status")
        ),
        "over annotations": lambda of: of(Order).annotate(n=Count("lines")).aggregate(x=BitXor("n"), y=BitOr("n")),
    }


def test_reads() -> None:
    for name, read in READS.items():
        found, expected = answers(read)
        assert found == expected, name


WITHOUT_PSYCOPG = """
import sys
sys.modules["psycopg"] = sys.modules["psycopg2"] = None
import django
from django.conf import settings
settings.configure()
django.setup()
import aggregator.compilers, aggregator.aggregation
assert "django.contrib.postgres.aggregates" not in sys.modules
"""


def test_nothing_imports_psycopg() -> None:
    subprocess.run([sys.executable, "-c", WITHOUT_PSYCOPG], check=True, cwd=servers.ROOT)

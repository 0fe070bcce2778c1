"""Moments of the hour that a clock repeats in autumn are told apart, whatever clock the driver shows them by."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections
from django.db.models.functions import TruncHour
from django.test import override_settings

from tests.shop.models import Order
from tests.two_sides import LAYOUTS, answers, rows_on, save

pytestmark = pytest.mark.django_db(databases="__all__")

PARIS = "Europe/Paris"
#: In UTC; in Paris it is one o'clock, and the hour from two to three comes twice in autumn, and never in spring.
AUTUMN = datetime.datetime(2013, 10, 26, 23, tzinfo=datetime.UTC)
SPRING = datetime.datetime(2013, 3, 31, 0, tzinfo=datetime.UTC)


@pytest.fixture(scope="module", autouse=True)
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), rows_on(LAYOUTS["none"]):
        steps = [datetime.timedelta(minutes=6 * number) for number in range(40)]
        moments = [start + step for start in (SPRING, AUTUMN) for step in steps]
        save(Order, [Order(tenant_id=place % 8, status="x", created=moment) for place, moment in enumerate(moments)])
        yield


READS = {
    "order": lambda of: of(Order).order_by("created", "id").values_list("id"),
    "descending in a slice": lambda of: of(Order).order_by("-created", "id")[15:35].values_list("id"),
    "latest": lambda of: of(Order).filter(status="x").latest("created"),
    "distinct": lambda of: len(of(Order).values_list("created").distinct()),
    "count of distinct": lambda of: of(Order).values("created").distinct().count(),
    "truncated": lambda of: of(Order).order_by(TruncHour("created"), "id").values_list("id"),
}


@contextmanager
def clock(zone: str | None) -> Iterator[None]:
    """Let every database show moments as they are in a time zone."""
    for connection in connections.all():
        connection.settings_dict["TIME_ZONE"] = zone
        for name in ("timezone", "timezone_name"):
            connection.__dict__.pop(name, None)
        connection.ensure_timezone()
    try:
        yield
    finally:
        if zone is not None:
            with clock(None):
                pass


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_without_time_zones(read: Any) -> None:
    with override_settings(USE_TZ=False, TIME_ZONE=PARIS):
        found, expected = answers(read)
    assert found == expected


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_databases_with_a_time_zone(read: Any) -> None:
    with clock(PARIS):
        found, expected = answers(read)
    assert found == expected

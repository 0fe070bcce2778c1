"""Pagination: page numbers, and cursors that stay stable"""

from __future__ import annotations

from typing import Any

from django.core.paginator import Paginator

from aggregator import KeysetPaginator
from demo.flights.models import Flight
from demo.step import step


@step()
def by_number(fan_out: Any) -> Any:
    """Django's own Paginator. Page 40 costs every shard 40 pages."""
    flights = fan_out(Flight.objects.filter(origin="JFK"))
    pages = Paginator(flights.order_by("-time_hour", "-id"), per_page=25)
    return list(pages.page(40))


@step()
def by_cursor(fan_out: Any) -> Any:
    """Cursors: every page costs the same, and rows that arrive meanwhile shift nothing."""
    flights = fan_out(Flight.objects).order_by("-time_hour", "-id")
    pages = KeysetPaginator(flights, per_page=25)
    first = pages.page()
    second = pages.page(first.next_cursor)
    return first.items + second.items

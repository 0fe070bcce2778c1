"""
Fan-out over a network that takes its time: each database is behind a proxy of its own, by which a round trip takes
5 ms, half of them each way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from aggregator import fan_out
from demo.flights.models import Flight
from demo.servers import REFERENCE
from scripts.benchmarks.delay_proxy import behind
from scripts.benchmarks.rounds import Comparison, Figure, measure
from sharding import conf

ROUND_TRIP = 5.0  # milliseconds
PAGE = 20
PAIRS = 3


def figure(rounds: int) -> Figure:
    """Return what a page costs over the shards, against one database that is as far away."""
    with delayed([*conf.current().shards, REFERENCE]):
        page = Comparison(
            *("first_page_delay_ratio", f"the latest {PAGE} flights, all 5 ms away", "one database", 1.3),
            *(_page, _page_there, lambda: None, PAIRS),
        )
        return measure(page, rounds)


@contextmanager
def delayed(aliases: Iterable[str]) -> Iterator[None]:
    """Let this thread's connections to databases lead there by the proxy inside."""
    wrappers = [connections[alias] for alias in aliases]
    before = [wrapper.settings_dict["PORT"] for wrapper in wrappers]
    with behind(before, ROUND_TRIP) as ports:
        _connect_by(wrappers, ports)
        try:
            yield
        finally:
            _connect_by(wrappers, before)


def _connect_by(wrappers: list[Any], ports: Iterable[Any]) -> None:
    for wrapper, port in zip(wrappers, ports, strict=True):
        wrapper.close()
        wrapper.settings_dict["PORT"] = port


def _page(_: object) -> list[Flight]:
    return list(fan_out(Flight.objects).order_by("-time_hour", "-id")[:PAGE])


def _page_there(_: object) -> list[Flight]:
    return list(Flight.objects.using(REFERENCE).order_by("-time_hour", "-id")[:PAGE])

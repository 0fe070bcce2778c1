"""
What fan-out costs: against the loop that one would write by hand, and against one database that holds all rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

from django.db.models import Avg, Count

from aggregator import fan_out
from demo.answers import difference
from demo.flights.models import Flight
from demo.servers import REFERENCE
from scripts.benchmarks import delayed, sixteen_shards, streams
from scripts.benchmarks.rounds import Comparison, Figure, Value
from scripts.benchmarks.routing import plain
from sharding import conf

PAGE = 20


@contextmanager
def comparisons() -> Iterator[list[Comparison]]:
    """Yield what is compared, once both ways are known to answer the same."""
    shards = [plain(alias) for alias in conf.current().shards]
    found = [
        Comparison(
            *("first_page_vs_loop_ratio", f"the latest {PAGE} flights", "a loop and heapq.merge", 0.5),
            *(_page, lambda _: _loop(shards), lambda: None, 5),
        ),
        Comparison("count_ratio", "the number of flights", "one database", 0.75, _count, _count_there),
        Comparison("group_by_ratio", "GROUP BY carrier", "one database", 0.65, _group_by, _group_by_there),
        Comparison(
            *("count_distinct_ratio", "the number of different destinations", "one database", 0.4),
            *(_count_distinct, _count_distinct_there),
        ),
    ]
    for each in found:
        wrong = difference(each.ours(None), each.baseline(None))
        if wrong is not None:
            raise AssertionError(f"The two ways of {each.name} answer differently: {wrong}.")
    yield [*found, *streams.comparisons()]


def values(rounds: int) -> Iterator[Value]:
    """Yield what is measured otherwise than in rounds of both ways."""
    return streams.values(rounds)


def figures(rounds: int) -> Iterator[Figure]:
    """Yield what is measured with a delay."""
    yield delayed.figure(rounds)
    yield sixteen_shards.figure(rounds)


def _page(_: object) -> list[Flight]:
    return list(fan_out(Flight.objects).order_by("-time_hour", "-id")[:PAGE])


def _loop(shards: list[str]) -> list[Flight]:
    pages = [list(Flight.objects.using(shard).order_by("-time_hour", "-id")[:PAGE]) for shard in shards]
    merged = heapq.merge(*pages, key=lambda flight: (flight.time_hour, flight.id), reverse=True)
    return list(islice(merged, PAGE))


def _count(_: object) -> int:
    return int(fan_out(Flight.objects).count())


def _count_there(_: object) -> int:
    return int(Flight.objects.using(REFERENCE).count())


def _group_by(_: object) -> list[dict[str, Any]]:
    return _grouped(fan_out(Flight.objects))


def _group_by_there(_: object) -> list[dict[str, Any]]:
    return _grouped(Flight.objects.using(REFERENCE))


def _grouped(flights: Any) -> list[dict[str, Any]]:
    by_carrier = flights.values("carrier").order_by("carrier")
    return list(by_carrier.annotate(flights=Count("id"), late=Avg("arrival_delay")))


def _count_distinct(_: object) -> dict[str, Any]:
    return dict(fan_out(Flight.objects).aggregate(found=Count("destination", distinct=True)))


def _count_distinct_there(_: object) -> dict[str, Any]:
    return dict(Flight.objects.using(REFERENCE).aggregate(found=Count("destination", distinct=True)))

"""
Streams of all rows, and pages by cursors far into them: rows per second, memory, and the cost of a late page.
"""

from __future__ import annotations

import gc
import random
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from aggregator import KeysetPaginator, fan_out
from demo.flights.models import Flight
from demo.servers import REFERENCE
from scripts.benchmarks.rounds import Comparison, Value

ORDER = ("time_hour", "id")
COLUMNS = ("id", "time_hour", "number", "distance")
PER_PAGE = 30
PAGE = 10_000
#: A stream takes seconds, so that fewer of them tell as much.
STREAMS = 9
KILOBYTES = 1024


def comparisons() -> Iterator[Comparison]:
    """Yield the comparison of a late page with the first."""
    pages = KeysetPaginator(fan_out(Flight.objects).order_by(*ORDER), PER_PAGE, count=None)
    late = _cursor_of(pages)
    name = f"page {PAGE:,} by cursor" if Flight.objects.using(REFERENCE).count() > PAGE * PER_PAGE else "a late page"
    yield Comparison(
        *("deep_page_ratio", name, "page 1", 1.1),
        *(lambda _: len(pages.page(late).items), lambda _: len(pages.page().items), lambda: None, 5),
    )


def values(rounds: int) -> Iterator[Value]:
    """Yield how fast all rows come, and in what memory."""
    # First, before other streams leave memory that it could use again.
    yield Value("stream_extra_mb", "memory of a stream beyond the idle process", _memory(), "MB", 60)
    streams = min(rounds, STREAMS)
    for name, what, read, target in (
        ("stream_instances_ratio", "instances", lambda rows: rows, 0.85),
        ("stream_values_ratio", f"values_list() of {len(COLUMNS)}", lambda rows: rows.values_list(*COLUMNS), 0.65),
    ):
        ratio = _speed(read, streams)
        yield Value(
            name, f"all rows in order as {what}, rows a second", ratio, "of one database's", target, at_least=True
        )


def _cursor_of(pages: Any) -> str | None:
    """Return the cursor of the page, made from the row before it."""
    flights = Flight.objects.using(REFERENCE).order_by(*ORDER)
    last = flights[min(PAGE * PER_PAGE, flights.count() * 9 // 10) - PER_PAGE - 1]
    # The page of that row alone; its next cursor is what walking would have given.
    paginator = KeysetPaginator(
        fan_out(Flight.objects).filter(time_hour__gte=last.time_hour, id__gte=last.pk).order_by(*ORDER), 1, count=None
    )
    page = paginator.page()
    if page.items[0].pk != last.pk:
        raise AssertionError("The cursor of a late page is another row's.")
    return page.next_cursor


def _speed(read: Callable[[Any], Any], streams: int) -> float:
    """Return the median of how many times as fast as from one database the rows come."""
    ways = [fan_out(Flight.objects), Flight.objects.using(REFERENCE)]
    ratios = []
    for turn in range(streams + 1):
        seconds = {}
        for way in random.sample(range(2), 2):
            rows = read(ways[way].order_by(*ORDER)).iterator()
            gc.collect()
            begun = time.perf_counter()
            deque(rows, maxlen=0)
            seconds[way] = time.perf_counter() - begun
        if turn:
            ratios.append(seconds[1] / seconds[0])
    return statistics.median(ratios)


def _memory() -> float:
    """Return the megabytes by which the highest resident memory exceeds that before the stream (Linux)."""
    gc.collect()
    Path("/proc/self/clear_refs").write_text("5")
    idle = _highest()
    deque(fan_out(Flight.objects).order_by(*ORDER).iterator(), maxlen=0)
    return _highest() - idle


def _highest() -> float:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / KILOBYTES

"""
A process of the application that writes flights through the door until it is asked to stop, and keeps a ledger.

    python -m demo.growing.writer LEDGER

Exit code 0: all was acknowledged that it wrote; 1 with a traceback: something was not.
"""

from __future__ import annotations

import random
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import django

django.setup()

from django.db import transaction  # noqa: E402

from aggregator import fan_out  # noqa: E402
from demo.flights.models import Flight  # noqa: E402
from demo.growing import ledger  # noqa: E402
from demo.growing.ledger import Entry, Write  # noqa: E402
from sharding import retry  # noqa: E402

#: Seconds of rest after each block: the machine has to move buckets, too.
REST = 0.004
#: Planes whose flights are changed and deleted; new ones are of all planes.
PLANES = 200


class Writer:
    """What the process knows: planes, and flights that are there."""

    def __init__(self, file: IO[str], seed: int) -> None:
        self._file = file
        self._random = random.Random(seed)
        found: list[str] = sorted(fan_out(Flight.objects).values_list("plane", flat=True).distinct())
        self._planes = found
        some = self._random.sample(found, min(PLANES, len(found)))
        self._flights: list[tuple[Any, str]] = sorted(
            Flight.objects.filter(plane__in=some).values_list("id", "plane"), key=lambda pair: str(pair[0])
        )

    def write(self) -> None:
        """Write one row by itself, or two in a block, which are often on two shards."""
        chosen = [self._choice() for _ in range(self._random.choice((1, 2)))]
        calls = 0

        def block() -> list[Write]:
            nonlocal calls
            calls += 1
            with transaction.atomic(using="default"):
                return [do() for do in chosen]

        begun = time.perf_counter()
        writes = retry(block)() if len(chosen) > 1 else [chosen[0]()]
        ledger.add(self._file, Entry(tuple(writes), time.perf_counter() - begun, max(calls, 1)))
        self._flights += [
            (each.id, each.columns["tailnum"])
            for each in writes
            if each.kind == "insert" and self._random.random() < 0.5
        ]

    def _choice(self) -> Callable[[], Write]:
        # Chosen before the block: one that is repeated writes the same once more.
        kind = self._random.choices(("insert", "update", "delete"), (5, 3, 2))[0]
        if kind == "insert" or not self._flights:
            plane, number = self._random.choice(self._planes), self._random.randrange(1, 9999)
            return lambda: _insert(plane, number)
        place = self._random.randrange(len(self._flights))
        id, plane = self._flights[place]
        if kind == "update":
            late = self._random.randrange(-20, 600)
            return lambda: _update(id, plane, late)
        del self._flights[place]
        return lambda: _delete(id, plane)


def _insert(plane: str, number: int) -> Write:
    flight = Flight.objects.create(
        plane_id=plane,
        carrier_id="UA",
        number=number,
        origin_id="JFK",
        destination_id="BOS",
        time_hour=datetime(2014, 1, 1, number % 24, tzinfo=UTC),
        distance=187,
    )
    fields: Any = Flight._meta.concrete_fields
    columns = {field.column: getattr(flight, field.attname) for field in fields}
    return Write("insert", str(flight.id), columns)


def _update(id: Any, plane: str, late: int) -> Write:
    changed = Flight.objects.filter(plane=plane, id=id).update(departure_delay=late)
    assert changed == 1, f"The UPDATE of flight {id} has changed {changed} rows."
    return Write("update", str(id), {"departure_delay": late})


def _delete(id: Any, plane: str) -> Write:
    deleted, _ = Flight.objects.filter(plane=plane, id=id).delete()
    assert deleted == 1, f"The DELETE of flight {id} has deleted {deleted} rows."
    return Write("delete", str(id), {})


def main(path: Path) -> None:
    """Write until SIGTERM comes."""
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda number, frame: stopped.set())
    with path.open("w", encoding="utf-8") as file:
        writer = Writer(file, seed=1)
        while not stopped.is_set():
            writer.write()
            time.sleep(REST)


if __name__ == "__main__":
    main(Path(sys.argv[1]))

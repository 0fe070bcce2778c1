"""
Clients that are killed while they commit on two shards, and what is left of their blocks.

    python -m scripts.benchmarks.killed_clients    is such a client: it writes until it is killed
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PAIRS = 5


def half_commits(kills: int) -> int:
    """Kill so many clients, recover, and return the number of pairs of rows that a block has changed by half."""
    from demo.flights.models import Flight
    from sharding.commits import recovery

    pairs = _pairs()
    for one, other in pairs:
        Flight.objects.filter(id__in=[one, other]).update(number=0)
    halves = 0
    for _ in range(kills):
        _kill_one()
        recovery.resolve_now(min_age=0)
        found = {
            flight.id: flight.number for flight in Flight.objects.filter(id__in=[i for pair in pairs for i in pair])
        }
        halves += sum(found[one] != found[other] for one, other in pairs)
    return halves


def _kill_one() -> None:
    client = subprocess.Popen(
        [sys.executable, "-m", "scripts.benchmarks.killed_clients"], cwd=ROOT, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    # Its first line says that it is at work.
    client.stdout.readline()
    time.sleep(random.uniform(0, 0.2))
    client.kill()
    client.wait()
    client.stdout.close()


def _pairs() -> list[tuple[object, object]]:
    """Return ids of flights, two by two on different shards, always the same ones."""
    from demo.flights.models import Flight
    from sharding import shard_of

    flights = list(Flight.objects.using("reference").order_by("id")[:200])
    first = shard_of(flights[0])
    here = [flight.id for flight in flights if shard_of(flight) == first]
    there = [flight.id for flight in flights if shard_of(flight) != first]
    return list(zip(here, there, strict=False))[:PAIRS]


def main() -> None:
    """Change pairs of rows alike, block after block."""
    import django

    django.setup()
    from django.db import transaction

    from demo.flights.models import Flight

    pairs = _pairs()
    start = time.time_ns() // 1_000_000 % 1_000_000_000
    for number in count(start):
        one, other = random.choice(pairs)
        with transaction.atomic(using="default"):
            Flight.objects.filter(id=one).update(number=number)
            Flight.objects.filter(id=other).update(number=number)
        if number == start:
            print("at work", flush=True)


if __name__ == "__main__":
    main()

"""
What commits cost: blocks over one and two shards, against plain commits there with Django's own ENGINE.

The servers wait for the disk here: a two-phase commit is made of waits for disks, some of them side by side.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import transaction

from demo.flights.models import Airline, Booking, Flight, Plane
from scripts.benchmarks import killed_clients
from scripts.benchmarks.rounds import Comparison, Value, milliseconds
from scripts.benchmarks.routing import plain
from sharding import shard_of

PAIRS = 15
SAMPLE = 400


@contextmanager
def comparisons() -> Iterator[list[Comparison]]:
    """Yield what is compared; it changes rows, and leaves their number as it was."""
    flights = list(Flight.objects.using("reference").order_by("?")[:SAMPLE])
    by_shard: dict[str, list[Flight]] = {}
    for flight in flights:
        by_shard.setdefault(shard_of(flight), []).append(flight)
    first, second, *_ = sorted(by_shard, key=lambda alias: -len(by_shard[alias]))
    turns = _turns(by_shard[first], by_shard[second], (plain(first), plain(second)))
    bookings = _book()
    yield [
        Comparison(
            *("one_shard_commit_ratio", "a block that writes one row", "Django's own ENGINE", 1.15),
            *(_one, _one_there, lambda: next(turns), PAIRS),
        ),
        Comparison(
            *("two_shard_commit_ratio", "a block that writes to two shards", "two plain commits", 3.0),
            *(_two, _two_there, lambda: next(turns), PAIRS),
        ),
        Comparison(
            *("lookup_read_ratio", "a booking by its code", "by its shard key", 1.6),
            *(_by_code, _by_key, lambda: random.choice(bookings), PAIRS),
        ),
    ]


def values(rounds: int) -> Iterator[Value]:
    """Yield what is compared with nothing."""
    yield Value(
        *("reference_write_ms", "a write of a reference model, to the control database and 4 shards"),
        *(milliseconds(_write_reference, rounds), "ms"),
    )
    kills = max(2, rounds // 4)
    halves = killed_clients.half_commits(kills)
    yield Value("half_commits", f"blocks committed by half after {kills} kill -9", halves, "", 0)


def _write_reference(turn: int) -> None:
    Airline.objects.filter(code="UA").update(name=f"United Air Lines Inc. {turn}")


def _book() -> list[Booking]:
    planes = Plane.objects.using("reference").order_by("tailnum")[:SAMPLE]
    bookings = [Booking(plane=plane, code=f"B{number:05}", name="Ada") for number, plane in enumerate(planes)]
    return list(Booking.objects.bulk_create(bookings))


def _by_code(booking: Booking) -> object:
    return Booking.objects.get(code=booking.code)


def _by_key(booking: Booking) -> object:
    return Booking.objects.get(plane=booking.plane_id, code=booking.code)


def _turns(first: list[Flight], second: list[Flight], aliases: tuple[str, str]) -> Iterator[Any]:
    """Yield pairs of rows on two shards for ever, with the aliases that lead there by Django's own ENGINE."""
    while True:
        for a, b in zip(first, second, strict=False):
            yield a, b, aliases


def _one(turn: Any) -> None:
    with transaction.atomic(using="default"):
        Flight.objects.filter(id=turn[0].id).update(number=1)


def _one_there(turn: Any) -> None:
    alias = turn[2][0]
    with transaction.atomic(using=alias):
        Flight.objects.using(alias).filter(id=turn[0].id).update(number=1)


def _two(turn: Any) -> None:
    with transaction.atomic(using="default"):
        Flight.objects.filter(id=turn[0].id).update(number=2)
        Flight.objects.filter(id=turn[1].id).update(number=2)


def _two_there(turn: Any) -> None:
    for flight, alias in zip(turn[:2], turn[2], strict=True):
        with transaction.atomic(using=alias):
            Flight.objects.using(alias).filter(id=flight.id).update(number=2)

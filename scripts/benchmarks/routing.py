"""
What routing costs: operations through `default`, against the same ones addressed to the right database by name.

The baseline's aliases have Django's own ENGINE and lead to the same databases; finding the alias is not counted.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from demo.flights.models import Airport, Flight, Plane
from scripts.benchmarks.rounds import Comparison
from sharding import shard_of

PAIRS = 25
SAMPLE = 500
#: How the benchmark's own rows are told apart, to be removed.
NUMBER = -1


@contextmanager
def comparisons() -> Iterator[list[Comparison]]:
    """Yield what is compared, and remove the rows that it inserts."""
    flights = list(Flight.objects.using("reference").order_by("?")[:SAMPLE])
    places = [(flight, plain(shard_of(flight))) for flight in flights]
    planes = [(plane.tailnum, plain(shard_of(plane))) for plane in Plane.objects.using("reference")[:SAMPLE]]
    codes = list(Airport.objects.values_list("code", flat=True))

    def place() -> tuple[Flight, str]:
        return random.choice(places)

    try:
        yield [
            Comparison(
                "point_read_ratio", "a flight by its id", "using(shard)", 1.10, _read, _read_there, place, PAIRS
            ),
            Comparison(
                *("point_read_by_key_ratio", "a plane by its shard key", "using(shard)", 1.10),
                *(_read_plane, _read_plane_there, lambda: random.choice(planes), PAIRS),
            ),
            Comparison("insert_ratio", "a new flight", "using(shard)", 1.10, _insert, _insert_there, place, PAIRS),
            Comparison(
                *("global_read_ratio", "an airport by its id", "Django's own ENGINE", 1.03),
                *(_read_global, _read_global_there, lambda: random.choice(codes), PAIRS),
            ),
        ]
    finally:
        for alias in {alias for _, alias in places}:
            Flight.objects.using(alias).filter(number=NUMBER).delete()


def plain(alias: str) -> str:
    """Return the alias that reaches the same database with Django's own ENGINE."""
    return alias.replace("shard_", "plain_")


def _read(place: tuple[Flight, str]) -> object:
    return Flight.objects.get(id=place[0].id)


def _read_there(place: tuple[Flight, str]) -> object:
    return Flight.objects.using(place[1]).get(id=place[0].id)


def _read_plane(place: tuple[str, str]) -> object:
    return Plane.objects.get(tailnum=place[0])


def _read_plane_there(place: tuple[str, str]) -> object:
    return Plane.objects.using(place[1]).get(tailnum=place[0])


def _insert(place: tuple[Flight, str]) -> object:
    return Flight.objects.create(**_values(place[0]))


def _insert_there(place: tuple[Flight, str]) -> object:
    return Flight.objects.using(place[1]).create(**_values(place[0]))


def _values(like: Flight) -> dict[str, Any]:
    return {
        "plane_id": like.plane_id,
        "carrier_id": like.carrier_id,
        "origin_id": like.origin_id,
        "destination_id": like.destination_id,
        "number": NUMBER,
        "time_hour": like.time_hour,
        "distance": like.distance,
    }


def _read_global(code: str) -> object:
    return Airport.objects.get(code=code)


def _read_global_there(code: str) -> object:
    return Airport.objects.using("plain_control").get(code=code)

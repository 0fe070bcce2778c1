"""Refused: what has no sure answer is an error that names the remedy"""

from __future__ import annotations

from typing import Any

from demo.flights.models import Flight
from demo.step import step
from sharding.errors import GlobalJoin, ShardKeyMissing


@step(refused=ShardKeyMissing)
def without_key() -> Any:
    """A query without a shard key, which nobody asked to fan out."""
    return list(Flight.objects.filter(destination="MIA")[:10])


@step(refused=ShardKeyMissing)
def unbounded_update() -> Any:
    """An UPDATE of every row on every shard is never sent by accident."""
    return Flight.objects.filter(departure_delay=None).update(departure_delay=0)


@step(refused=GlobalJoin)
def global_join() -> Any:
    """A join to a global table, which is on another server."""
    flights = Flight.objects.filter(plane="N14228")
    return list(flights.filter(destination__name="Miami Intl"))


@step(expected=["UA1545 EWR-IAH, George Bush Intercontinental"])
def remedy() -> Any:
    """The remedy: prefetch_related() asks for the global rows on their own."""
    flights = Flight.objects.filter(plane="N14228").order_by("time_hour")
    first = flights.prefetch_related("destination")[:1]
    return [f"{flight}, {flight.destination.name}" for flight in first]

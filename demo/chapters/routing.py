"""Routing: the shard is found from the query"""

from __future__ import annotations

from typing import Any

from demo.flights.models import Flight, Plane
from demo.step import step


@step()
def by_key() -> Any:
    """A plane by its shard key. No database is named anywhere, and one shard is asked."""
    return Plane.objects.get(tailnum="N14228")


@step()
def related() -> Any:
    """Its flights live where it does, so related managers follow the key."""
    plane = Plane.objects.get(tailnum="N14228")
    return plane.flights.filter(destination="MIA").order_by("-time_hour")


@step()
def joined() -> Any:
    """Planes and flights join within a shard."""
    flights = Flight.objects.filter(plane="N14228", plane__engine="Turbo-fan")
    return flights.select_related("plane").order_by("-distance", "id")[:5]


@step()
def by_id() -> Any:
    """The id of a flight holds its bucket, so it finds the shard without the key."""
    ids = Flight.objects.filter(plane="N328AA").values_list("id", flat=True)
    return Flight.objects.get(id=ids[0])


@step()
def several_keys() -> Any:
    """Several keys: only the shards that own them are asked, and the answers are merged in order."""
    flights = Flight.objects.filter(plane__in=["N14228", "N24211"])
    return flights.order_by("-time_hour", "id")


@step()
def global_rows() -> Any:
    """A global model is asked of the control database, as ever."""
    return Flight.objects.filter(plane="N328AA")[0].destination

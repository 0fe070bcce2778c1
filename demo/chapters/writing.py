"""Writing: atomic() reaches the databases that are written to"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import transaction

from demo.flights.models import Flight, Plane
from demo.step import step


@step(expected="3 flights, of which UA2 JFK-BOS is late")
def atomic() -> Any:
    """A new plane and its first flights, in one transaction of the shard that owns them."""
    with transaction.atomic(using="default"):
        plane = Plane.objects.create(tailnum="N-DEMO", engines=2, seats=180)
        for day in (1, 2, 3):
            plane.flights.create(
                carrier_id="UA",
                number=day,
                origin_id="JFK",
                destination_id="BOS",
                time_hour=datetime(2014, 2, day, 9, tzinfo=UTC),
                distance=187,
            )
        plane.flights.filter(number=2).update(departure_delay=25)
    late = plane.flights.get(departure_delay__gt=0)
    return f"{plane.flights.count()} flights, of which {late} is late"


@step(expected="180 seats, and 0 flights are 999 minutes late")
def rolled_back() -> Any:
    """What a block wrote is gone after an error, also what related managers wrote."""
    plane = Plane.objects.get(tailnum="N-DEMO")
    try:
        with transaction.atomic(using="default"):
            plane.flights.update(departure_delay=999)
            plane.seats = 0
            plane.save()
            raise RuntimeError("Changed my mind")
    except RuntimeError:
        plane.refresh_from_db()
    late = plane.flights.filter(departure_delay=999).count()
    return f"{plane.seats} seats, and {late} flights are 999 minutes late"


@step(expected="4 rows are deleted, 0 are left")
def cascade() -> Any:
    """Deleting the plane takes its flights along, on its shard."""
    deleted, _ = Plane.objects.get(tailnum="N-DEMO").delete()
    left = Flight.objects.filter(plane="N-DEMO").count()
    return f"{deleted} rows are deleted, {left} are left"

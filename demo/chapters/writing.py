"""Writing: atomic() reaches the databases that are written to"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from django.db import IntegrityError, transaction

from demo.flights.models import Airline, Booking, Flight, Plane
from demo.step import step
from sharding import shard_of


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


@step(expected="2 new planes on 2 shards, of Demo Air")
def two_phases() -> Any:
    """A block over two shards, and over all of them for the airline: it commits everywhere or nowhere."""
    with transaction.atomic(using="default"):
        one = Plane.objects.create(tailnum="N-DEMO-1", engines=2, seats=50)
        other = Plane.objects.create(tailnum="N-DEMO-2", engines=2, seats=50)
        Airline.objects.create(code="ZZ", name="Demo Air")
    shards = len({shard_of(one), shard_of(other)})
    airline = Airline.objects.get(code="ZZ")
    return f"2 new planes on {shards} shards, of {airline}"


@step(expected="it has never been, on any server")
def undone_everywhere() -> Any:
    """An error in such a block, and it has never been."""
    planes = Plane.objects.filter(tailnum__in=["N-DEMO-1", "N-DEMO-2"])
    try:
        with transaction.atomic(using="default"):
            planes.delete()
            Airline.objects.filter(code="ZZ").update(name="")
            raise RuntimeError("Changed my mind")
    except RuntimeError:
        kept = planes.filter(seats=50).count() == 2
    kept = kept and Airline.objects.get(code="ZZ").name != ""
    return "it has never been, on any server" if kept else "it was done"


@step(expected="QX7M2P Ada, and the code is taken on every shard")
def second_key() -> Any:
    """A row is found by its second key: the control database says where. It is unique over the whole cluster."""
    one = Plane.objects.get(tailnum="N-DEMO-1")
    other = Plane.objects.get(tailnum="N-DEMO-2")
    one.bookings.create(code="QX7M2P", name="Ada")
    try:
        other.bookings.create(code="QX7M2P", name="Bob")
    except IntegrityError:
        taken = "the code is taken on every shard"
    return f"{Booking.objects.get(code='QX7M2P')}, and {taken}"


@step(expected="4 rows are deleted, 0 are left")
def cascade() -> Any:
    """Deleting the plane takes its flights along, on its shard."""
    Plane.objects.filter(tailnum__in=["N-DEMO-1", "N-DEMO-2"]).delete()
    Airline.objects.filter(code="ZZ").delete()
    deleted, _ = Plane.objects.get(tailnum="N-DEMO").delete()
    left = Flight.objects.filter(plane="N-DEMO").count()
    return f"{deleted} rows are deleted, {left} are left"

"""
Planes are sharded by their tail number, and each flight lives where its plane does. Airlines are kept whole on every
shard, and airports are global.
"""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import models

from sharding.fields import ShardUUIDField
from sharding.models import LookupIndex, ReferenceModel, ShardedModel


class Airline(ReferenceModel):
    code = models.CharField(max_length=2, primary_key=True)
    name = models.CharField(max_length=60)

    def __str__(self) -> str:
        return self.name


class Airport(models.Model):
    code = models.CharField(max_length=3, primary_key=True)
    name = models.CharField(max_length=60)
    latitude = models.FloatField()
    longitude = models.FloatField()
    time_zone = models.CharField(max_length=40, null=True)  # noqa: DJ001 - the data set does not know all

    objects: ClassVar[models.Manager[Airport]] = models.Manager()

    def __str__(self) -> str:
        return self.name


class Plane(ShardedModel):
    shard_key = "tailnum"

    tailnum = models.CharField(max_length=10, primary_key=True)
    year = models.IntegerField(null=True)
    kind = models.CharField(max_length=30)
    manufacturer = models.CharField(max_length=30)
    model = models.CharField(max_length=30)
    engines = models.IntegerField()
    seats = models.IntegerField()
    engine = models.CharField(max_length=20)

    #: The related manager.
    flights: Any

    def __str__(self) -> str:
        return self.tailnum


class Flight(ShardedModel):
    shard_key = "plane"

    id = ShardUUIDField(primary_key=True)
    # Without a constraint, since 721 tail numbers of the data set have no plane.
    plane = models.ForeignKey(Plane, models.CASCADE, db_constraint=False, db_column="tailnum", related_name="flights")
    carrier = models.ForeignKey(Airline, models.PROTECT, db_index=False, related_name="flights")
    # These are global, so their rows are on another server.
    origin = models.ForeignKey(Airport, models.PROTECT, db_constraint=False, db_index=False, related_name="departures")
    destination = models.ForeignKey(
        Airport, models.PROTECT, db_constraint=False, db_index=False, related_name="arrivals"
    )
    plane_id: str
    carrier_id: str
    origin_id: str
    destination_id: str
    number = models.IntegerField()
    time_hour = models.DateTimeField()
    departure_delay = models.IntegerField(null=True)
    arrival_delay = models.IntegerField(null=True)
    air_time = models.IntegerField(null=True)
    distance = models.IntegerField()

    class Meta:
        indexes = [models.Index(fields=["time_hour", "id"], name="flight_by_time")]

    def __str__(self) -> str:
        return f"{self.carrier_id}{self.number} {self.origin_id}-{self.destination_id}"


class Booking(ShardedModel):
    """A passenger on a plane, who knows the code of the booking and not the plane."""

    shard_key = "plane"
    lookups = [LookupIndex(fields=["code"], unique=True)]

    id = ShardUUIDField(primary_key=True)
    plane = models.ForeignKey(Plane, models.CASCADE, related_name="bookings")
    plane_id: str
    code = models.CharField(max_length=6, unique=True)
    name = models.CharField(max_length=40)

    def __str__(self) -> str:
        return f"{self.code} {self.name}"

"""Fan-out: every shard is asked, and the answer is one"""

from __future__ import annotations

from typing import Any

from django.db.models import Avg, Count, F, Max, Q, Window
from django.db.models.functions import Rank

from demo.flights.models import Flight, Plane
from demo.step import step


@step()
def latest(fan_out: Any) -> Any:
    """The latest 20 flights of all."""
    return fan_out(Flight.objects).order_by("-time_hour", "-id")[:20]


@step()
def count(fan_out: Any) -> Any:
    """How many flights there are."""
    return fan_out(Flight.objects).count()


@step()
def exists(fan_out: Any) -> Any:
    """Whether any flight was more than 20 hours late."""
    late = Flight.objects.filter(departure_delay__gt=20 * 60)
    return fan_out(late).exists()


@step()
def distinct(fan_out: Any) -> Any:
    """Where planes flew to from LaGuardia, each destination once."""
    departures = Flight.objects.filter(origin="LGA")
    destinations = fan_out(departures).values_list("destination", flat=True)
    return destinations.distinct().order_by("destination")


@step()
def group_by(fan_out: Any) -> Any:
    """GROUP BY with two aggregates. An average over all shards is no average of averages."""
    carriers = fan_out(Flight.objects).values("carrier").order_by("carrier")
    return carriers.annotate(flights=Count("id"), late=Avg("arrival_delay"))


@step()
def having(fan_out: Any) -> Any:
    """HAVING: the destinations that more than 15,000 flights went to."""
    destinations = fan_out(Flight.objects).values("destination")
    busy = destinations.annotate(flights=Count("id")).filter(flights__gt=15_000)
    return busy.order_by("-flights")


@step()
def aggregate(fan_out: Any) -> Any:
    """Several figures of all flights at once."""
    return fan_out(Flight.objects).aggregate(
        flights=Count("id"),
        cancelled=Count("id", filter=Q(departure_delay=None)),
        longest=Max("air_time"),
    )


@step()
def across_a_reference(fan_out: Any) -> Any:
    """A join to a reference model, which every shard has whole: the airlines that cancelled most, by name."""
    cancelled = fan_out(Flight.objects).filter(departure_delay=None)
    airlines = cancelled.values("carrier__name").annotate(flights=Count("id"))
    return airlines.order_by("-flights", "carrier__name")


@step()
def across_a_relation(fan_out: Any) -> Any:
    """A join within the shards, merged over them: the busiest of the planes built before 1965."""
    old = fan_out(Plane.objects.filter(year__lt=1965))
    busy = old.annotate(n=Count("flights")).order_by("-n", "tailnum")
    return busy.values("tailnum", "year", "n")


@step()
def window(fan_out: Any) -> Any:
    """A window over all shards, whose rows are gathered: each airline's worst delay into Miami."""
    worst_first = F("arrival_delay").desc()
    place = Window(Rank(), partition_by="carrier", order_by=worst_first)
    late = Flight.objects.filter(destination="MIA", arrival_delay__gt=240)
    worst = fan_out(late).annotate(place=place).filter(place=1)
    worst = worst.order_by("carrier", "id")
    return worst.values_list("carrier", "arrival_delay")


@step()
def across_a_global_table(fan_out: Any) -> Any:
    """A join to a global table: flights of the longest legs, by the airport's name."""
    far = fan_out(Flight.objects).filter(distance__gt=4900)
    airports = far.values("destination__name").annotate(flights=Count("id"))
    return airports.order_by("destination__name")

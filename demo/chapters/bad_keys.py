"""Bad keys: what the data set itself gets wrong"""

from __future__ import annotations

from collections import Counter
from typing import Any

from demo.flights.models import Flight, Plane
from demo.records import Record
from demo.step import step
from sharding.errors import ShardingError, ShardKeyMissing


@step(silent=True)
def one_by_one(without_tailnum: list[Record]) -> Any:
    """2,512 flights have no tail number, hence no shard. Each is refused before anything is sent anywhere."""
    refusals: Counter[str] = Counter()
    for record in without_tailnum:
        try:
            Flight.objects.create(**record)
        except ShardingError as error:
            refusals[f"{type(error).__name__}: {error}"] += 1
    ((refusal, times),) = refusals.items()
    return f"{times:,} times {refusal}"


@step(refused=ShardKeyMissing)
def in_bulk(without_tailnum: list[Record]) -> Any:
    """One such flight behind good ones: none of them is written."""
    bad, *others = without_tailnum
    good = [Flight(**{**other, "plane_id": "N14228"}) for other in others]
    Flight.objects.bulk_create([*good, Flight(**bad)])


@step()
def without_plane(fan_out: Any) -> Any:
    """721 tail numbers have flights and no plane. They have a shard all the same."""
    planes = fan_out(Plane.objects).values_list("tailnum", flat=True)
    flown = fan_out(Flight.objects).values_list("plane", flat=True).distinct()
    unknown = set(flown) - set(planes)
    return f"{len(unknown)} of {len(flown)}, {min(unknown)} for one"

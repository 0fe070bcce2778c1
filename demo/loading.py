"""
Load the data set: into the cluster as an application would, by ``bulk_create()`` through `default`; into the reference
database, from the same objects, by COPY.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from django.db import models

from demo import records
from demo.copying import copy
from demo.data_set import DataSet
from demo.flights.models import Airline, Airport, Flight, Plane
from demo.records import Record
from demo.report import Advance
from demo.servers import REFERENCE

BATCH = 5_000
#: Lines of the table of flights.
FLIGHTS = 336_776


@dataclass
class Loaded:
    """What was loaded, and the flights that no key can be found for."""

    flights: int = 0
    planes: int = 0
    without_tailnum: list[Record] = field(default_factory=list)


def load(data: DataSet, advance: Advance, rows: int | None = None) -> Loaded:
    """Load the whole data set, or its first ``rows`` flights, into the cluster and into the reference database."""
    _load_global(Airline, records.read(data.open("airlines"), records.AIRLINES))
    _load_global(Airport, records.read(data.open("airports"), records.AIRPORTS))
    loaded = Loaded()
    for plane_batch in records.batches(records.read(data.open("planes"), records.PLANES), BATCH):
        loaded.planes += _load_sharded(Plane, plane_batch)
    flights = records.read(data.open("flights"), records.FLIGHTS)
    for batch in records.batches(islice(flights, rows), BATCH):
        loaded.without_tailnum += [record for record in batch if record["plane_id"] is None]
        loaded.flights += _load_sharded(Flight, (record for record in batch if record["plane_id"] is not None))
        advance(len(batch))
    return loaded


def _load_global(model: type[models.Model], found: Iterator[Record]) -> None:
    rows = list(found)
    for manager in (model._default_manager, model._default_manager.using(REFERENCE)):
        manager.bulk_create([model(**row) for row in rows])


def _load_sharded(model: type[Any], found: Iterable[Record]) -> int:
    # One statement per shard; which rows go where is nobody's business here.
    rows = model.objects.bulk_create([model(**row) for row in found])
    copy(rows, REFERENCE)
    return len(rows)

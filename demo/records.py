"""
The lines of the data set as values for the models: ``NA`` becomes None, numbers and times get their types.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import cache
from itertools import islice
from typing import Any

Record = dict[str, Any]

#: How the data set writes that a value is not known.
UNKNOWN = "NA"


@cache
def _time(text: str) -> datetime:
    # Flights share some 7,000 hours.
    return datetime.fromisoformat(text)


#: Attribute of the model -> (column of the table, type).
Columns = Mapping[str, tuple[str, Callable[[str], Any]]]

AIRLINES: Columns = {"code": ("carrier", str), "name": ("name", str)}
AIRPORTS: Columns = {
    "code": ("faa", str),
    "name": ("name", str),
    "latitude": ("lat", float),
    "longitude": ("lon", float),
    "time_zone": ("tzone", str),
}
PLANES: Columns = {
    "tailnum": ("tailnum", str),
    "year": ("year", int),
    "kind": ("type", str),
    "manufacturer": ("manufacturer", str),
    "model": ("model", str),
    "engines": ("engines", int),
    "seats": ("seats", int),
    "engine": ("engine", str),
}
FLIGHTS: Columns = {
    "plane_id": ("tailnum", str),
    "carrier_id": ("carrier", str),
    "number": ("flight", int),
    "origin_id": ("origin", str),
    "destination_id": ("dest", str),
    "time_hour": ("time_hour", _time),
    "departure_delay": ("dep_delay", int),
    "arrival_delay": ("arr_delay", int),
    "air_time": ("air_time", int),
    "distance": ("distance", int),
}


def read(lines: Iterable[str], columns: Columns) -> Iterator[Record]:
    """
    Yield one record per line of a table, in the order of the table.

    Raises:
        KeyError: the table lacks a column.
        ValueError: a value is not of its column's type.
    """
    reader = csv.reader(lines)
    header = {name: place for place, name in enumerate(next(reader))}
    picked = [(attribute, header[column], convert) for attribute, (column, convert) in columns.items()]
    for line in reader:
        yield {
            attribute: None if line[place] == UNKNOWN else convert(line[place]) for attribute, place, convert in picked
        }


def batches(records: Iterable[Record], size: int) -> Iterator[list[Record]]:
    """Yield the records in lists of ``size``; the last may be shorter."""
    left = iter(records)
    while batch := list(islice(left, size)):
        yield batch

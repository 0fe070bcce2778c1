"""What each database itself holds of the reference tables."""

from __future__ import annotations

from typing import Any

from django.db import connections

from sharding import reference_rows, routing
from sharding.reference_rows import Row
from tests.layouts import CLUSTER
from tests.shop.models import Country, Currency

MODELS: tuple[Any, ...] = (Currency, Country, Country.neighbours.through)


def rows_of(model: Any, alias: str) -> list[Row]:
    """Return the rows of a table on one database, as it stores them."""
    with routing.native(alias):
        return sorted(reference_rows.read(connections[alias], reference_rows.table_of(model)))


def everywhere(model: Any) -> list[Row]:
    """Return the rows of a reference table, and fail unless all databases hold the same ones."""
    found = {alias: rows_of(model, alias) for alias in CLUSTER}
    assert all(rows == found["default"] for rows in found.values()), found
    return found["default"]

"""
The length by which PostgreSQL compares intervals: a month has 30 days, a year 360, and a day 24 hours.

The driver takes 365 days for a year, so the durations that it gives are neither equal nor sorted as their intervals.
"""

from __future__ import annotations

from typing import Any

from django.db.models import DecimalField, Func

INTERVAL = "interval"
#: EXTRACT(EPOCH …) takes 365.25 days for a year.
TEMPLATE = "(EXTRACT(EPOCH FROM {0}) - 453600 * EXTRACT(YEAR FROM {0}))"


class Length(Func):
    """The seconds of an interval, as it is compared."""

    arity = 1

    def __init__(self, interval: Any) -> None:
        super().__init__(interval, output_field=DecimalField())

    def as_sql(self, compiler: Any, connection: Any, *args: Any, **kwargs: Any) -> Any:
        sql, params = compiler.compile(self.get_source_expressions()[0])
        return TEMPLATE.format(sql), (*params, *params)

"""
An aggregate that no tier can put together, and those that are not at the same place in every Django.
"""

from __future__ import annotations

from typing import Any

import django
from django.db.models import Aggregate, FloatField, Value

from tests import servers

BITWISE: Any = None
if django.VERSION >= (6, 1):
    from django.db import models as BITWISE
elif servers.engine == "postgresql":
    from django.contrib.postgres import aggregates as BITWISE

BitAnd: Any = getattr(BITWISE, "BitAnd", None)
BitOr: Any = getattr(BITWISE, "BitOr", None)
BitXor: Any = getattr(BITWISE, "BitXor", None)


class Median(Aggregate):
    """An aggregate of somebody's own, of which nobody knows how parts make a whole."""

    function = "MEDIAN"
    output_field = FloatField()


def listing(kind: str, name: Any, *, order: Any, **options: Any) -> Any:
    """Return an aggregate of PostgreSQL that lists values."""
    from django.contrib.postgres import aggregates
    from django.db import models

    if order:
        options["order_by"] = order
    if kind == "StringAgg":
        made: Any = getattr(models, kind, getattr(aggregates, kind))
        return made(name, Value(", ") if hasattr(models, kind) else ", ", **options)
    return getattr(aggregates, kind)(name, **options)

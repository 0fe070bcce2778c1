"""
How many rows all pages have: counted, or as the planners of the databases estimate it from their statistics.
"""

from __future__ import annotations

import json
from typing import Any

from django.core.exceptions import EmptyResultSet
from django.db import connections


def estimated(queryset: Any) -> int:
    """Return the sum of what the planner of each shard expects."""
    try:
        explained = queryset.order_by().explain(format="json")
    except EmptyResultSet:
        return 0
    plans = [json.loads(line) for line in explained.splitlines() if line.startswith("[")]
    if not plans:
        return int(queryset.count())
    return sum(int(plan[0]["Plan"]["Plan Rows"]) for plan in plans)


def require_estimates(queryset: Any) -> None:
    """Raise ValueError unless the queryset's database estimates numbers of rows."""
    vendor = connections[queryset.db].vendor
    if vendor != "postgresql":
        raise ValueError(f"{vendor} estimates no number of rows. Take count='exact', or None.")

"""
Look for reference rows that are not the same on every database: missing, differing, or surplus on a shard.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from django.apps import apps
from django.db.models import Model

from sharding import cluster_map, reference_models, reference_rows, reference_sync
from sharding.reference_rows import Row
from sharding.reference_sync import Drift

#: A block that is just committing is seen on one database before the other, so a difference is looked at again.
LOOKS = 3
PAUSE = 0.2


def audit_copies(labels: Sequence[str], alias: str, *, repair: bool = False) -> list[Drift]:
    """
    Compare a shard's copies of reference tables with the control database's rows: all, or those with these labels.

    With ``repair`` they are made the same; surplus rows to which other rows refer are left.
    """
    wanted = [model for model in _models(labels) if model._meta.db_table in _tables(alias)]
    if repair:
        return reference_sync.bring_up_to_date(alias, wanted) if wanted else []
    return [_lasting(alias, model) for model in wanted]


def examples(drift: Drift, number: int) -> list[str]:
    """Return the primary keys of a few rows that are wrong, as text."""
    key = reference_rows.table_of(apps.get_model(drift.model))
    return ["/".join(map(str, each)) for each in key.keys([*drift.missing, *drift.differing, *drift.surplus])[:number]]


def _models(labels: Sequence[str]) -> list[type[Model]]:
    wanted = {label.lower() for label in labels}
    return [model for model in reference_models.models() if not wanted or model._meta.label_lower in wanted]


def _tables(alias: str) -> set[str]:
    return set(cluster_map.connection_of(alias).introspection.table_names())


def _lasting(alias: str, model: type[Model]) -> Drift:
    drift = reference_sync.compare(alias, model)
    for _ in range(LOOKS - 1):
        if not drift.wrong:
            break
        time.sleep(PAUSE)
        again = reference_sync.compare(alias, model)
        again.missing = _both(drift.missing, again.missing)
        again.differing = _both(drift.differing, again.differing)
        again.surplus = _both(drift.surplus, again.surplus)
        drift = again
    return drift


def _both(before: Sequence[Row], now: Sequence[Row]) -> list[Row]:
    return [row for row in now if row in before]

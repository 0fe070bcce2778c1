"""
What a database is given once it belongs to the cluster: its fence, and the rows of reference models.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from django.db import OperationalError

from sharding import reference_models, reference_sync
from sharding.direct_connection import is_locked_out
from sharding.errors import FenceMissing
from sharding.fence import raising


def equip(fenced: Iterable[str], copied: Iterable[str], pause: Callable[[float], None] = time.sleep) -> None:
    """
    Raise the fences of some databases, and bring the copies of others up to date.

    Args:
        pause: waits for some seconds while others hold the locks that are needed.

    Raises:
        FenceMissing: they held them after all pauses, too. All else is done.
    """
    locked: dict[str, OperationalError] = {}
    for alias in fenced:
        try:
            raising.raise_patiently(alias, pause)
        except OperationalError as error:
            if not is_locked_out(error):
                raise
            locked[alias] = error
    if reference_models.tables():
        for alias in copied:
            reference_sync.bring_up_to_date(alias)
    if locked:
        raise FenceMissing(
            f"The map is stored, but {', '.join(locked)} got no triggers, since others hold locks of the tables for "
            f"long. Find them by `SELECT * FROM pg_stat_activity`, and run `manage.py migrate_all`, which raises what "
            f"is missing. Until then no bucket moves.",
            aliases=tuple(locked),
        ) from next(iter(locked.values()))

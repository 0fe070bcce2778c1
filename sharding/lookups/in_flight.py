"""
Transactions that are decided and not yet committed everywhere: the moment between an entry's commit and its row's.

The control database commits first, with the decision. Whoever sees an entry then may have to wait for its row, whose
transaction is prepared on the shard and about to be committed.
"""

from __future__ import annotations

import time
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from sharding.commits.gids import PREFIX

#: Of this database, all of them ours: another cluster's blocks end as quickly.
PREPARED = "SELECT gid FROM pg_prepared_xacts WHERE database = current_database() AND gid LIKE %s"
FIRST_PAUSE = 0.001
LONGEST_PAUSE = 0.05


def commits(connection: Any) -> set[str]:
    """Return the gids of the transactions that are prepared on a shard."""
    if connection.vendor != "postgresql" or connection.alias == DEFAULT_DB_ALIAS:
        # The control database commits its own rows together with their entries.
        return set()
    with connection.cursor() as cursor:
        cursor.execute(PREPARED, [f"{PREFIX}:%"])
        return {gid for (gid,) in cursor.fetchall()}


def wait_for(connection: Any, gids: set[str], *, seconds: float) -> set[str]:
    """Wait until none of these transactions is prepared any more; return those that still are after ``seconds``."""
    left, pause = gids, FIRST_PAUSE
    deadline = time.monotonic() + seconds
    while left and time.monotonic() < deadline:
        time.sleep(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        left = left & commits(connection)
    return left

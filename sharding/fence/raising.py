"""
Raise the fence of a database of the cluster: write what the bucket map gives to it, and only then install the triggers.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from django.db import OperationalError, connections

from sharding import cluster_map, conf
from sharding.control import ShardIdentity
from sharding.direct_connection import is_locked_out
from sharding.fence import installation, states

RETRIES = 5
#: Seconds before the first one; each further one waits twice as long, up to LONGEST_DELAY.
FIRST_DELAY = 1.0
LONGEST_DELAY = 30.0


def raise_patiently(alias: str, pause: Callable[[float], None], retries: int = RETRIES) -> tuple[str, ...]:
    """
    Raise the fence of a database, again while writers hold the locks that it needs; return what raise_around() does.

    Args:
        pause: waits for some seconds, or raises to stop.

    Raises:
        OperationalError: after all retries there was somebody who did not let go.
    """
    for turn in range(retries):
        try:
            return raise_around(alias)
        except OperationalError as error:
            if not is_locked_out(error):
                raise
        pause(min(FIRST_DELAY * 2**turn, LONGEST_DELAY) * random.uniform(0.8, 1.2))
    return raise_around(alias)


def raise_around(alias: str) -> tuple[str, ...]:
    """
    Install the fence of a database, or bring it up to date; return the tables whose triggers were changed.

    Nothing is done without SHARDING["FENCE"], where no shards are declared, and before the database belongs to a
    cluster: nobody owns a bucket yet, and every write would be refused. The first time, the database is given the
    buckets of the stored map.
    """
    connection: Any = connections[alias]
    if conf.current().fence is None or not conf.current().shards or not installation.is_possible(connection):
        return ()
    if not ShardIdentity.objects.using(alias).exists():
        return ()
    if not installation.is_installed(connection) and not states.states(connection):
        _write(connection, alias)
    return installation.install(connection)


def follow_map(alias: str) -> None:
    """Let a database own just the buckets that the stored map gives to it, whatever it was about to do: for tests."""
    connection: Any = connections[alias]
    if conf.current().fence is not None and installation.is_possible(connection):
        _write(connection, alias)


def _write(connection: Any, alias: str) -> None:
    stored = cluster_map.current()
    states.write(connection, stored.buckets_of(alias), stored.epoch)

"""
Raise the fence of a database of the cluster: write what the bucket map gives to it, and only then install the triggers.
"""

from __future__ import annotations

from typing import Any

from django.db import connections

from sharding import cluster_map, conf
from sharding.control import ShardIdentity
from sharding.fence import installation, states


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

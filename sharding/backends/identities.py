"""
Is this the shard that the alias names? Each database says so itself, and is asked once in a process; each session is
asked whether it is the shard as the bucket map has it.

Two URLs that were exchanged would otherwise send queries to the wrong shard, which answers that it has no such rows.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

from django.core.signals import setting_changed

from sharding import cluster_map, conf, isolation
from sharding.backends import agreeing
from sharding.errors import MapConflict

_known: set[str] = set()


def require(connection: Any) -> None:
    """
    Check that the database of a shard says that it is this shard of this cluster, unless it has said so before.

    One that says nothing yet, and one whose transaction takes no more statements, are left to the statement itself.

    Raises:
        MapConflict: it says that it is another one.
        ShardUncertified: its fence disagrees with the bucket map.
    """
    alias = connection.alias
    if alias in _known:
        if alias in conf.current().shards:
            agreeing.require(connection)
        return
    if alias not in conf.current().shards:
        # The control database, where the bucket map was read.
        _known.add(alias)
        return
    # By name a shard can be asked while the control database is down, and no map was ever read.
    uuid = cluster_map.uuid() if cluster_map.known() is not None else None
    if uuid is None or connection.needs_rollback:
        return
    found = _said_by(connection)
    if found is None:
        return
    if found != (str(uuid), alias):
        raise MapConflict(
            f"The database of {alias!r} says that it is {found[1]!r} of cluster {found[0]}, not {alias!r} of cluster "
            f"{uuid}, so that nothing was sent to it. Correct its URL; `manage.py shards status` shows them all."
        )
    agreeing.require(connection)
    _known.add(alias)


def _said_by(connection: Any) -> tuple[str, str] | None:
    # The driver's connection: nobody's statements are counted, logged or refused for it.
    connection.ensure_connection()
    raw = connection.connection
    isolation.learn_default(connection)
    with connection.wrap_database_errors:
        if connection.vendor == "postgresql":
            there = raw.execute("SELECT to_regclass('sharding_identity') IS NOT NULL").fetchone()[0]
        else:
            there = raw.execute("SELECT count(*) FROM sqlite_master WHERE name = 'sharding_identity'").fetchone()[0]
        row = raw.execute("SELECT cluster, shard FROM sharding_identity").fetchone() if there else None
    return None if row is None else (str(UUID(str(row[0]))), str(row[1]))


def forget() -> None:
    """Ask every shard again."""
    _known.clear()
    agreeing.forget()


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"SHARDING", "DATABASES"}:
        forget()


setting_changed.connect(_on_setting_changed)

"""
Which shards hold all rows of a reference table: those that a write must reach, and that may be read.

The control database stores it, one row a table. A write locks that row shared, and bringing a shard up to date locks
it alone: a write comes before the copying, and is copied, or after it, and reaches the shard itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import cluster_map, conf, reference_models
from sharding.errors import ReferenceOutdated, UnknownShard

#: The last reading of the control database, and the shards for which nothing is missing in it.
_seen: tuple[Mapping[str, frozenset[str]] | None, frozenset[str]] = (None, frozenset())


def shards_to_write(connection: Any, table: str) -> list[str]:
    """
    Return the shards that a write of a reference table must reach, sorted, until the open transaction ends.

    A shard that DATABASES does not have any more holds the table no longer, so that it is copied anew if it returns.

    Raises:
        UnknownShard: such a shard owns buckets.
    """
    # The backends import this module, and Django loads them before any model may be imported.
    from sharding.control import BucketOwner

    held = _locked(connection, table, alone=False)
    gone = [alias for alias in held if alias not in connections]
    for alias in gone:
        if BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(shard=alias).exists():
            raise UnknownShard(
                f"The shard {alias!r} owns buckets and holds a copy of {table!r}, but is not in DATABASES, so this "
                f"write would not reach it. Declare it again, or restart this process with today's settings.",
                alias=alias,
            )
    if gone:
        _store(connection, table, set(held) - set(gone))
    return [alias for alias in held if alias not in gone]


def lock(connection: Any, tables: Iterable[str]) -> None:
    """Keep every write of reference tables waiting until the open transaction of the control database ends."""
    for table in sorted(tables):
        _locked(connection, table, alone=True)


def add(connection: Any, alias: str, tables: Iterable[str]) -> None:
    """Note that a shard holds all rows of tables that are locked."""
    for table in tables:
        _store(connection, table, {*_locked(connection, table, alone=True), alias})


def missing(alias: str) -> list[str]:
    """Ask the control database which reference tables a shard does not hold; return their names, sorted."""
    held = cluster_map.stored_copies()
    return sorted(table for table in reference_models.tables() if alias not in held.get(table, ()))


def is_complete(alias: str) -> bool:
    """Return whether a shard holds every reference table, as far as this process knows."""
    global _seen
    copies = cluster_map.known_copies()
    if copies is None:
        return False
    if copies is not _seen[0]:
        every = [copies.get(table, frozenset()) for table in reference_models.tables()]
        _seen = copies, frozenset(alias for alias in conf.current().shards if all(alias in held for held in every))
    return alias in _seen[1]


def require(alias: str, table: str) -> None:
    """
    Check that a shard holds the rows of a reference table, as far as this process knows: it learns of it with the map.

    Raises:
        ReferenceOutdated: it does not.
    """
    copies = cluster_map.known_copies()
    if alias not in (cluster_map.copies() if copies is None else copies).get(table, ()):
        raise ReferenceOutdated(
            f"The shard {alias!r} was not given the rows of {table!r} yet, a table of the reference model "
            f"{reference_models.tables()[table]}. Run `manage.py migrate_all`, which copies them.",
            table=table,
            alias=alias,
        )


def _locked(connection: Any, table: str, *, alone: bool) -> list[str]:
    if alone and connection.vendor == "sqlite":
        with connection.cursor() as cursor:
            # SQLite has one writer at a time, which one becomes by writing.
            cursor.execute("UPDATE sharding_reference SET shards = shards WHERE table_name = %s", [table])
    stored = _select(connection, table, alone=alone)
    if stored is None:
        with connection.cursor() as cursor:
            # A snapshot that does not see another's new row fails here instead of missing it.
            cursor.execute(
                "INSERT INTO sharding_reference (table_name, shards) VALUES (%s, '[]') ON CONFLICT DO NOTHING", [table]
            )
        stored = _select(connection, table, alone=alone)
    aliases: list[str] = json.loads(stored or "[]")
    return aliases


def _select(connection: Any, table: str, *, alone: bool) -> str | None:
    # On SQLite, who asks is the one writer already.
    suffix = "" if connection.vendor == "sqlite" else " FOR UPDATE" if alone else " FOR SHARE"
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT shards FROM sharding_reference WHERE table_name = %s{suffix}", [table])
        row = cursor.fetchone()
    return None if row is None else str(row[0])


def _store(connection: Any, table: str, aliases: set[str]) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE sharding_reference SET shards = %s WHERE table_name = %s", [json.dumps(sorted(aliases)), table]
        )

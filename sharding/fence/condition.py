"""
What is wrong with the fence of one database: it is not as `migrate_all` makes it, or disagrees with the bucket map.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf
from sharding.bucket_map import BucketMap
from sharding.fence import installation, states
from sharding.move_tables import Move

#: How many buckets and tables a sentence names.
_SHOWN: Final = 5
#: Phases of moves that are over.
ENDED: Final = ("aborted", "done")


@dataclass(frozen=True, slots=True)
class Condition:
    """What is to be said of a fence, as the ends of sentences that begin with it; None for nothing."""

    #: As `migrate_all` would put it right.
    lack: str | None = None
    #: Between its states and the bucket map.
    difference: str | None = None

    def __bool__(self) -> bool:
        return self.lack is not None or self.difference is not None


def condition(alias: str, stored: BucketMap | None) -> Condition | None:
    """
    Return what is wrong with the fence of a database that belongs to the cluster; None where there is none to be.

    Args:
        stored: the bucket map as the control database holds it; None if it was not asked.
    """
    connection: Any = connections[alias]
    if conf.current().fence is None or not conf.current().shards or not installation.is_possible(connection):
        return None
    if not installation.is_installed(connection):
        return Condition(lack="is missing")
    return Condition(_lack(installation.inspect(connection)), _difference(connection, stored))


def _moving() -> frozenset[int]:
    """Return the buckets on their way, of which the map and the fences say the same in the end."""
    connection = connections[DEFAULT_DB_ALIAS]
    if Move._meta.db_table not in connection.introspection.table_names():
        return frozenset()
    under_way = Move.objects.using(DEFAULT_DB_ALIAS).exclude(phase__in=ENDED)
    return frozenset(under_way.values_list("bucket", flat=True))


def _lack(found: installation.Lack) -> str | None:
    if found.functions:
        return "is of another version"
    return f"has not the triggers that it should have on {_some(found.tables)}" if found.tables else None


def _difference(connection: Any, stored: BucketMap | None) -> str | None:
    if stored is None:
        return None
    rows = states.states(connection)
    # What the fence learned after the map was read is no contradiction.
    newer = {bucket for bucket, row in rows.items() if row.epoch > stored.epoch}
    found = states.compare(rows, stored.buckets_of(connection.alias)).without(newer)
    if found:
        found = found.without(_moving())
    parts = []
    if found.missing:
        parts.append(f"the map gives the buckets {_some(found.missing)} to it, and it does not show them")
    if found.foreign:
        parts.append(f"it shows the buckets {_some(found.foreign)}, which are others'")
    return f"disagrees with the bucket map: {'; '.join(parts)}" if parts else None


def _some(found: Sequence[object]) -> str:
    more = len(found) - _SHOWN
    return ", ".join(map(str, found[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")

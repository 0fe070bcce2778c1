"""
Reading the bucket map, and what else a process knows of the cluster, from the control database.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf, isolation, live_moves, reference_models
from sharding.bucket_map import BucketMap
from sharding.errors import MapConflict, MapMissing


@dataclass(frozen=True, slots=True)
class Loaded:
    """One reading of the control database."""

    map: BucketMap
    numbers: dict[str, int]
    until: float
    #: None for a cluster of one that was never initialised.
    uuid: UUID | None = None
    #: {reference table: the shards that hold its rows}
    copies: Mapping[str, frozenset[str]] = field(default_factory=dict)
    #: False for a map that was put together from what shards said.
    whole: bool = True
    #: Whether no bucket was on its way.
    is_quiet: bool = False
    #: Whether the control database has tables for a map.
    is_migrated: bool = True


def read(before: Loaded | None) -> Loaded:
    """
    Read the control database, but for what it is known to have had ``before``.

    Raises:
        MapMissing: shards are declared, and `shards init` was never run.
        MapConflict: the cluster was initialised with another BUCKETS or HASH.
    """
    # The backends import this module, and Django loads them before any model may be imported.
    from sharding.control import BucketOwner, Cluster, ShardNumber

    settings = conf.current()
    until = time.monotonic() + settings.map_ttl
    if not _is_migrated(Cluster._meta.db_table, before):
        if settings.shards:
            raise _missing()
        return _cluster_of_one(until, is_migrated=False)
    # The epoch is read first: a map that changes in between is then read again after MAP_TTL, never kept for new.
    cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).first()
    if cluster is None:
        if settings.shards:
            raise _missing()
        return _cluster_of_one(until, is_migrated=True)
    if (cluster.buckets, cluster.hash) != (settings.buckets, settings.hash):
        raise MapConflict(
            f"This cluster was initialised with BUCKETS={cluster.buckets} and HASH={cluster.hash!r}, but SHARDING says "
            f"BUCKETS={settings.buckets} and HASH={settings.hash!r}. They never change: put the former back."
        )
    isolation.learn_default(connections[DEFAULT_DB_ALIAS])
    numbers = dict(ShardNumber.objects.using(DEFAULT_DB_ALIAS).values_list("shard", "number"))
    held = stored_copies(before)
    is_quiet = not live_moves.exist()
    if before is not None and before.whole and before.map.epoch == cluster.epoch:
        return Loaded(before.map, numbers, until, cluster.uuid, held, is_quiet=is_quiet)
    owners = tuple(BucketOwner.objects.using(DEFAULT_DB_ALIAS).order_by("bucket").values_list("shard", flat=True))
    if len(owners) != cluster.buckets:
        raise MapConflict(
            f"The bucket map holds {len(owners)} of {cluster.buckets} buckets. "
            f"Restore the table sharding_bucket of the control database from a backup."
        )
    return Loaded(BucketMap(cluster.epoch, owners), numbers, until, cluster.uuid, held, is_quiet=is_quiet)


def stored_copies(before: Loaded | None) -> dict[str, frozenset[str]]:
    """Ask the control database which shards hold each reference table; nothing is asked in a project without any."""
    from sharding.control import ReferenceCopies

    if not reference_models.tables():
        return {}
    if not (before and before.copies) and not _has_table(ReferenceCopies._meta.db_table):
        return {}
    rows = ReferenceCopies.objects.using(DEFAULT_DB_ALIAS).values_list("table_name", "shards")
    return {table: frozenset(json.loads(shards)) for table, shards in rows}


def _is_migrated(table: str, before: Loaded | None) -> bool:
    # A failing SELECT would break the caller's transaction; the catalogue can be asked safely.
    return (before is not None and before.is_migrated) or _has_table(table)


def _has_table(table: str) -> bool:
    return table in connections[DEFAULT_DB_ALIAS].introspection.table_names()


def _cluster_of_one(until: float, *, is_migrated: bool) -> Loaded:
    """
    `default` owns every bucket until somebody initialises the cluster.

    A process that nobody has told of the shards notices that, too, before rows have gone.
    """
    whole = BucketMap.whole(DEFAULT_DB_ALIAS, conf.current().buckets)
    return Loaded(whole, {DEFAULT_DB_ALIAS: 0}, until, is_migrated=is_migrated)


def _missing() -> MapMissing:
    return MapMissing(
        f"The control database holds no bucket map, but there are shards: "
        f"{', '.join(conf.current().shards)}. Run `manage.py migrate_all` and then `manage.py shards init`."
    )

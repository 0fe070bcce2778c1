"""
What the databases say of the cluster they belong to: read alone, without judging it and without a cached map.

A database that was never migrated has none of these tables, and that is an answer too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, connections

from sharding.bucket_map import BucketMap
from sharding.control import BucketOwner, Cluster, ShardIdentity, ShardNumber


@dataclass(frozen=True, slots=True)
class StoredCluster:
    """What the control database holds."""

    uuid: UUID
    buckets: int
    hash: str
    epoch: int
    #: The number of each shard in the ids that it mints.
    numbers: dict[str, int]
    #: How many buckets each owner has.
    counts: dict[str, int]
    #: None while entries of the map are missing.
    map: BucketMap | None


@dataclass(frozen=True, slots=True)
class Identity:
    """What a physical database says it is."""

    cluster: UUID
    shard: str
    epoch: int


def has_tables(alias: str) -> bool:
    """Return whether the app `sharding` is migrated on a database."""
    connection: Any = connections[alias]
    expected = {ShardIdentity._meta.db_table} | ({Cluster._meta.db_table} if alias == DEFAULT_DB_ALIAS else set())
    return expected <= set(connection.introspection.table_names())


def cluster() -> StoredCluster | None:
    """Return the cluster of the control database, or None before it is initialised."""
    if not has_tables(DEFAULT_DB_ALIAS):
        return None
    row = Cluster.objects.using(DEFAULT_DB_ALIAS).first()
    if row is None:
        return None
    owners = dict(BucketOwner.objects.using(DEFAULT_DB_ALIAS).order_by("bucket").values_list("bucket", "shard"))
    complete = list(owners) == list(range(row.buckets))
    numbers = dict(ShardNumber.objects.using(DEFAULT_DB_ALIAS).values_list("shard", "number"))
    counts: dict[str, int] = {}
    for alias in owners.values():
        counts[alias] = counts.get(alias, 0) + 1
    return StoredCluster(
        uuid=row.uuid,
        buckets=row.buckets,
        hash=row.hash,
        epoch=row.epoch,
        numbers=numbers,
        counts=dict(sorted(counts.items())),
        map=BucketMap(row.epoch, tuple(owners.values())) if complete else None,
    )


def identity(alias: str) -> Identity | None:
    """Return what a database says it is, or None when it says nothing."""
    if not has_tables(alias):
        return None
    row = ShardIdentity.objects.using(alias).first()
    return None if row is None else Identity(row.cluster, row.shard, row.epoch)


def contradiction(alias: str, found: Identity, expected: StoredCluster | None) -> str | None:
    """
    Return a sentence about an identity that is not that of ``alias``, or None when it is.

    Without ``expected``, when the control database was not asked, the alias alone is compared.
    """
    if expected is not None and (found.cluster, found.shard) != (expected.uuid, alias):
        return (
            f"The database of {alias!r} says that it is {found.shard!r} of cluster {found.cluster}, not {alias!r} of "
            f"cluster {expected.uuid}."
        )
    if found.shard != alias:
        return f"The database of {alias!r} says that it is {found.shard!r} of cluster {found.cluster}."
    if expected is not None and found.epoch > expected.epoch:
        return (
            f"The database of {alias!r} has seen epoch {found.epoch} of the bucket map, and the control database holds "
            f"epoch {expected.epoch}."
        )
    return None

"""
Initialise a cluster: store what never changes, number the shards, and write the first bucket map.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence

from django.db import DEFAULT_DB_ALIAS, transaction

from sharding import cluster_map, conf
from sharding.control import BucketOwner, Cluster, ShardIdentity, ShardNumber
from sharding.errors import MapConflict


def initialise(owners: Sequence[str]) -> Cluster:
    """
    Store the first bucket map of a cluster, epoch 1, and return the cluster.

    Args:
        owners: the alias that owns each bucket, in the order of the buckets.

    Raises:
        MapConflict: the cluster is initialised already, or the map has not BUCKETS entries.
    """
    settings = conf.current()
    if len(owners) != settings.buckets:
        raise MapConflict(f"A map of {len(owners)} buckets does not fit BUCKETS={settings.buckets}.")
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        if Cluster.objects.using(DEFAULT_DB_ALIAS).exists():
            raise MapConflict("This cluster is initialised already. Buckets move with `manage.py rebalance`.")
        cluster = Cluster(uuid=uuid.uuid4(), buckets=settings.buckets, hash=settings.hash, epoch=1)
        cluster.save(using=DEFAULT_DB_ALIAS, force_insert=True)
        BucketOwner.objects.using(DEFAULT_DB_ALIAS).bulk_create(
            [BucketOwner(bucket=bucket, shard=alias, epoch=1) for bucket, alias in enumerate(owners)]
        )
    number_shards()
    cluster_map.refresh()
    return cluster


def number_shards() -> None:
    """Give every declared shard that has none the next number; a number is never given twice."""
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        numbers = dict(ShardNumber.objects.using(DEFAULT_DB_ALIAS).select_for_update().values_list("shard", "number"))
        # `default` minted as number 0 while it was a cluster of one.
        numbers.setdefault(DEFAULT_DB_ALIAS, 0)
        for alias in conf.current().shards:
            numbers.setdefault(alias, max(numbers.values()) + 1)
        for alias, number in numbers.items():
            ShardNumber.objects.using(DEFAULT_DB_ALIAS).get_or_create(shard=alias, defaults={"number": number})


def identify(alias: str) -> None:
    """
    Write into a shard which shard of which cluster it is, and the epoch of the map it belongs to.

    Raises:
        MapConflict: the database says that it is another shard, or of another cluster.
    """
    cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).get()
    found = ShardIdentity.objects.using(alias).first()
    if found is not None and (found.cluster, found.shard) != (cluster.uuid, alias):
        raise MapConflict(
            f"The database of {alias!r} says that it is {found.shard!r} of cluster {found.cluster}, not {alias!r} of "
            f"cluster {cluster.uuid}. Correct the URL of {alias!r}."
        )
    ShardIdentity.objects.using(alias).update_or_create(
        id=1, defaults={"cluster": cluster.uuid, "shard": alias, "epoch": cluster.epoch}
    )


def identify_all() -> None:
    """Write the identity of the control database and of every declared shard."""
    for alias in (DEFAULT_DB_ALIAS, *conf.current().shards):
        identify(alias)

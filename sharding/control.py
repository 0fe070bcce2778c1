"""
The tables of the toolkit itself: the cluster and its bucket map in the control database, an identity on every shard.

They are not managed, so that `flush` and TransactionTestCase leave them alone; the migrations make them all the same.
"""

from __future__ import annotations

from django.db import models


class Cluster(models.Model):
    """The one row that says what was fixed when the cluster was initialised, and the epoch of its map."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    uuid = models.UUIDField()
    buckets = models.SmallIntegerField()
    hash = models.CharField(max_length=32)
    epoch = models.BigIntegerField()
    created = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_cluster"
        managed = False

    def __str__(self) -> str:
        return f"cluster {self.uuid}"


class BucketOwner(models.Model):
    """One entry of the bucket map."""

    bucket = models.SmallIntegerField(primary_key=True)
    shard = models.CharField(max_length=63)
    epoch = models.BigIntegerField()

    class Meta:
        app_label = "sharding"
        db_table = "sharding_bucket"
        managed = False

    def __str__(self) -> str:
        return f"{self.bucket} on {self.shard}"


class ShardNumber(models.Model):
    """The number of a shard inside the ids that it mints; it is never given to another shard."""

    shard = models.CharField(max_length=63, primary_key=True)
    number = models.SmallIntegerField(unique=True)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_shard"
        managed = False

    def __str__(self) -> str:
        return f"{self.shard} is {self.number}"


class ShardIdentity(models.Model):
    """The one row on every physical database that says which shard of which cluster it is, and the epoch it saw."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    cluster = models.UUIDField()
    shard = models.CharField(max_length=63)
    epoch = models.BigIntegerField()

    class Meta:
        app_label = "sharding"
        db_table = "sharding_identity"
        managed = False

    def __str__(self) -> str:
        return f"{self.shard} of {self.cluster}"


#: Models of this app whose table also exists on every shard.
ON_EVERY_SHARD = frozenset({"shardidentity", "idsequence"})

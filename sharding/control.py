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
    #: The sum of the marks of the buckets whose rows are to be seen here, which the fence keeps; None without one.
    shown = models.BigIntegerField(null=True)
    #: How many buckets there are whose rows, if it has any, are not to be seen here, likewise.
    hidden = models.BigIntegerField(null=True)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_identity"
        managed = False

    def __str__(self) -> str:
        return f"{self.shard} of {self.cluster}"


class Decision(models.Model):
    """The verdict on one transaction over several databases; see sharding.commits.decisions."""

    transaction = models.CharField(max_length=40, primary_key=True)
    committed = models.BooleanField()
    #: JSON list of the aliases that prepared; empty for a tombstone.
    aliases = models.TextField()
    decided = models.DateTimeField()

    class Meta:
        app_label = "sharding"
        db_table = "sharding_decision"
        managed = False

    def __str__(self) -> str:
        return f"{self.transaction} is {'committed' if self.committed else 'aborted'}"


class Compensation(models.Model):
    """What is to be called if only a part of a block committed; see sharding.commits.compensation_log."""

    id = models.BigAutoField(primary_key=True)
    #: Id of the block, ``<coordinator>.<number>``, and the place of the compensation in it.
    block = models.CharField(max_length=40)
    number = models.IntegerField()
    #: ``module:qualified.name``, and JSON of its positional and keyword arguments.
    path = models.TextField()
    arguments = models.TextField()
    #: JSON list of the aliases to commit, in order; and of those that did, empty until it is known that not all did.
    aliases = models.TextField()
    committed = models.TextField(default="")
    logged = models.DateTimeField()
    failures = models.IntegerField(default=0)
    #: How the last call failed.
    error = models.TextField(default="")

    class Meta:
        app_label = "sharding"
        db_table = "sharding_compensation"
        managed = False

    def __str__(self) -> str:
        return f"{self.path} of {self.block}"


class CommittedPart(models.Model):
    """The mark of a block's part in the database that committed it; see sharding.commits.parts."""

    block = models.CharField(max_length=40, primary_key=True)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_part"
        managed = False

    def __str__(self) -> str:
        return self.block


class ReferenceCopies(models.Model):
    """Which shards hold all rows of a reference table; see sharding.reference_copies."""

    table_name = models.CharField(max_length=63, primary_key=True)
    #: JSON list of aliases, sorted.
    shards = models.TextField()

    class Meta:
        app_label = "sharding"
        db_table = "sharding_reference"
        managed = False

    def __str__(self) -> str:
        return f"{self.table_name} on {self.shards}"


class LookupState(models.Model):
    """Whether a lookup has an entry for every row, and how far `shards lookup build` has come."""

    #: The lookup's table.
    name = models.CharField(max_length=63, primary_key=True)
    built = models.BooleanField(default=False)
    #: {shard: the last bucket and id that were looked at, as JSON}, as JSON.
    progress = models.TextField(default="{}")

    class Meta:
        app_label = "sharding"
        db_table = "sharding_lookup"
        managed = False

    def __str__(self) -> str:
        return f"{self.name} is {'built' if self.built else 'not built'}"


#: Models of this app whose table also exists on every shard.
ON_EVERY_SHARD = frozenset({"shardidentity", "idsequence", "committedpart", "fence", "dirty", "copyprogress"})

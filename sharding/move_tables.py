"""
The tables of moves: on every database what each bucket is there, and in the control database what is done about it.

As those of `sharding.control`, they are not managed.
"""

from __future__ import annotations

from django.db import models

from sharding.bucket_states import FENCE


class Fence(models.Model):
    """What one bucket is on this database; see sharding.bucket_states."""

    bucket = models.SmallIntegerField(primary_key=True)
    state = models.CharField(max_length=16)
    #: Of the bucket map, since which it is so.
    epoch = models.BigIntegerField()
    #: Which attempt at a move may change it: the highest that has tried.
    generation = models.BigIntegerField(default=0)
    #: The shard to which the bucket has gone.
    forward = models.CharField(max_length=63, default="")
    #: Stands for the bucket in sums; see sharding.bucket_states.mark_of().
    mark = models.BigIntegerField()

    class Meta:
        app_label = "sharding"
        db_table = FENCE
        managed = False

    def __str__(self) -> str:
        return f"{self.bucket} is {self.state}"


class Dirty(models.Model):
    """A row that was written while its bucket is being copied."""

    seq = models.BigAutoField(primary_key=True)
    bucket = models.SmallIntegerField(db_index=True)
    table_name = models.CharField(max_length=63)
    #: JSON array of the values of the primary key's columns.
    key = models.JSONField()

    class Meta:
        app_label = "sharding"
        db_table = "sharding_dirty"
        managed = False

    def __str__(self) -> str:
        return f"{self.table_name} {self.key}"


class CopyProgress(models.Model):
    """How far the copy of one bucket's rows of one table has come, in the database that gets them."""

    id = models.BigAutoField(primary_key=True)
    bucket = models.SmallIntegerField()
    table_name = models.CharField(max_length=63)
    generation = models.BigIntegerField()
    #: JSON array of the last row's primary key.
    last = models.JSONField(null=True)
    rows = models.BigIntegerField(default=0)
    #: The sum of the digests of the rows, as they were read.
    digest = models.DecimalField(max_digits=40, decimal_places=0, default=0)
    done = models.BooleanField(default=False)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_progress"
        managed = False
        constraints = (models.UniqueConstraint(fields=["bucket", "table_name"], name="sharding_progress_table"),)

    def __str__(self) -> str:
        return f"{self.rows} rows of {self.table_name} in bucket {self.bucket}"


class Move(models.Model):
    """One bucket on its way from one shard to another; see sharding.rebalance."""

    id = models.BigAutoField(primary_key=True)
    #: Moves that were planned together.
    plan = models.UUIDField()
    bucket = models.SmallIntegerField()
    source = models.CharField(max_length=63)
    target = models.CharField(max_length=63)
    phase = models.CharField(max_length=16)
    #: What the operator wants: to go on, to pause, to abort.
    wanted = models.CharField(max_length=16, default="go")
    #: The attempt that is at work, or was.
    generation = models.BigIntegerField(default=0)
    #: Of the bucket map, by the decision.
    epoch = models.BigIntegerField(null=True)
    #: What the plan expects to go over.
    rows = models.BigIntegerField(default=0)
    bytes = models.BigIntegerField(default=0)
    #: Rows that have gone over, and writes that were noted and not taken over when it was last looked.
    copied = models.BigIntegerField(default=0)
    noted = models.BigIntegerField(default=0)
    planned = models.DateTimeField(auto_now_add=True)
    begun = models.DateTimeField(null=True)
    #: The last sign of life of the attempt.
    changed = models.DateTimeField(auto_now=True)
    #: Since when the source sends everybody on.
    announced = models.DateTimeField(null=True)
    #: Until when the move can be taken back.
    window_ends = models.DateTimeField(null=True)
    #: Seconds for which nobody could write the bucket.
    gap = models.FloatField(null=True)
    #: What was verified, as JSON; and how the last attempt failed.
    report = models.JSONField(null=True)
    error = models.TextField(default="")
    #: Attempts that have failed one after the other, and when the next one is due.
    failures = models.IntegerField(default=0)
    retry_at = models.DateTimeField(null=True)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_move"
        managed = False
        constraints = (
            models.UniqueConstraint(
                fields=["bucket"], condition=~models.Q(phase__in=["done", "aborted"]), name="sharding_move_bucket"
            ),
        )

    def __str__(self) -> str:
        return f"bucket {self.bucket} from {self.source} to {self.target}: {self.phase}"


class Attempt(models.Model):
    """One process taking moves in hand; its id is the generation that it shows to the fences."""

    id = models.BigAutoField(primary_key=True)
    #: The first of those that go together.
    move = models.BigIntegerField()
    worker = models.CharField(max_length=200)
    begun = models.DateTimeField(auto_now_add=True)

    class Meta:
        app_label = "sharding"
        db_table = "sharding_attempt"
        managed = False

    def __str__(self) -> str:
        return f"attempt {self.pk} at move {self.move} by {self.worker}"


class CleanUp(models.Model):
    """Something that a move is about to make on a shard, so that it can be taken away whatever becomes of the move."""

    id = models.BigAutoField(primary_key=True)
    move = models.BigIntegerField()
    shard = models.CharField(max_length=63)
    kind = models.CharField(max_length=32)
    bucket = models.SmallIntegerField()

    class Meta:
        app_label = "sharding"
        db_table = "sharding_cleanup"
        managed = False

    def __str__(self) -> str:
        return f"{self.kind} of bucket {self.bucket} on {self.shard}"

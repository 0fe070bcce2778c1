"""
What moves leave on the shards: rows of buckets that were given away, or are not given yet, beside the owner's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle
from typing import Any
from uuid import uuid4

from django.db import connections, transaction
from django.db.models import Model

from sharding import cluster_map, hidden_rows
from sharding.bucket_states import FENCE, BucketState, mark_of
from sharding.fence.functions import MOVER
from sharding.models import Fence, Move
from sharding.rebalance.phases import Phase

Sharded = Sequence[type[Model]]

#: What hides rows, said here once more, or the tests would follow the code into an error.
HIDING = (BucketState.IMPORTING, BucketState.MOVED)
#: Of the attempt at moves that left the rows.
GENERATION = 1
HIDDEN = f"SELECT bucket FROM {FENCE} WHERE state IN ({', '.join(repr(str(state)) for state in HIDING)})"


@contextmanager
def on_the_next_shard(models: Sharded, *, known: bool = False) -> Iterator[None]:
    """
    Let each shard have copies of the rows of the one before, which its fence hides.

    Args:
        models: of the rows, those that are referred to first.
        known: the control database says that buckets are on their way, so that nobody has to be refused.
    """
    aliases = cluster_map.current().aliases
    # SQLite has no fences.
    if len(aliases) == 1 or connections["default"].vendor == "sqlite":
        yield
        return
    rows = {
        alias: {model: _execute(alias, f"SELECT {_columns(model)} FROM {_table(model)}") for model in models}
        for alias in aliases
    }
    for source, target in zip(aliases, (*aliases[1:], aliases[0]), strict=True):
        _hide(source, target)
        for model in models:
            marks = ", ".join(["%s"] * len(_columns(model).split()))
            _move(target, f"INSERT INTO {_table(model)} ({_columns(model)}) VALUES ({marks})", rows[source][model])
    move = Move(plan=uuid4(), bucket=0, source=aliases[0], target=aliases[1], phase=Phase.WINDOW)
    if known:
        move.save()
        cluster_map.refresh()
    try:
        yield
    finally:
        if known:
            move.delete()
            cluster_map.expire()
        for alias in aliases:
            for model in reversed(models):
                _move(alias, f"DELETE FROM {_table(model)} WHERE bucket IN ({HIDDEN})")
            Fence.objects.using(alias).filter(state__in=HIDING).delete()


def forget() -> None:
    """Let this process take it again that no shard hides rows, until one of them refuses a statement."""
    hidden_rows._doubted = None


def copy(model: type[Model], bucket: int, source: str, target: str) -> None:
    """Let a shard have the rows of a bucket that another one has, as a move of the first generation does."""
    marks = ", ".join(["%s"] * len(_columns(model).split()))
    rows = _execute(source, f"SELECT {_columns(model)} FROM {_table(model)} WHERE bucket = {bucket}")
    _move(target, f"INSERT INTO {_table(model)} ({_columns(model)}) VALUES ({marks})", rows)


def purge(model: type[Model], bucket: int, alias: str) -> None:
    """Let a shard have no row of a bucket any more, as a move of the first generation does that is through."""
    Fence.objects.using(alias).filter(bucket=bucket).update(generation=GENERATION)
    _move(alias, f"DELETE FROM {_table(model)} WHERE bucket = {bucket}")


def _hide(source: str, target: str) -> None:
    """Let a shard hide the buckets of another, of every two one as moved."""
    buckets = cluster_map.current().buckets_of(source)
    states = [str(state) for state, _ in zip(cycle(HIDING), buckets, strict=False)]
    with connections[target].cursor() as cursor:
        cursor.execute(
            f"INSERT INTO {FENCE} (bucket, state, epoch, generation, forward, mark) "
            f"SELECT bucket, state, 1, {GENERATION}, '', mark "
            "FROM unnest(%s::integer[], %s::text[], %s::bigint[]) AS given (bucket, state, mark)",
            [list(buckets), states, [mark_of(each) for each in buckets]],
        )


def _table(model: Any) -> str:
    return str(model._meta.db_table)


def _columns(model: Any) -> str:
    return ", ".join(field.column for field in model._meta.concrete_fields if not field.generated)


def _move(alias: str, sql: str, rows: Any = None) -> None:
    """Execute a statement as a mover does, which alone may write what a shard hides."""
    connection: Any = connections[alias]
    with transaction.atomic(using=alias):
        if connection.vendor == "postgresql":
            _execute(alias, f"SET LOCAL {MOVER} = '{GENERATION}'")
        _execute(alias, sql, rows)


def _execute(alias: str, sql: str, rows: Any = None) -> Any:
    connection: Any = connections[alias]
    with connection.cursor() as cursor, connection.sharded_statements():
        if rows is None:
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else None
        return cursor.executemany(sql, rows)

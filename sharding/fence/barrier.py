"""
Change what a bucket is on a shard, behind all who have written it.

A barrier has the bucket's lock and the shard's alone, so every transaction that wrote the bucket has ended, and the
next one will read the new state. While it waits, new writers of the bucket wait too: it gives up soon, and tries again
later.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Set
from contextlib import contextmanager
from typing import Any, Final, TypeVar

from sharding.bucket_states import BucketState, mark_of
from sharding.fence.functions import BUCKET_LOCK, SHARD_LOCK

T = TypeVar("T")

#: Milliseconds that the attempts wait for the locks, and seconds of rest between two, of which a part is by chance.
WAITS: Final = (50, 50, 100, 100, 200, 200, 400, 400)
REST: Final = 0.1

#: lock_not_available and deadlock_detected.
_BUSY: Final = {"55P03", "40P01"}


def behind(connection: Any, bucket: int, act: Callable[[Any], T], *, waits: tuple[int, ...] = WAITS) -> T:
    """
    Call ``act(cursor)`` in a transaction that has the barrier of a bucket, and return what it returns.

    Args:
        connection: psycopg's, in autocommit.
        waits: milliseconds of each attempt to get the locks.

    Raises:
        psycopg.errors.LockNotAvailable: somebody had written the bucket in a transaction that did not end, at the last
            attempt, too.
    """
    for number, wait in enumerate(waits, 1):
        try:
            with connection.transaction(), connection.cursor() as cursor:
                with _limited(cursor, wait):
                    lock(cursor, bucket)
                return act(cursor)
        except Exception as error:
            if getattr(error, "sqlstate", None) not in _BUSY or number == len(waits):
                raise
        time.sleep(REST * random.uniform(0.5, 1.5))
    raise ValueError("A barrier needs one attempt at least.")


def lock(cursor: Any, bucket: int) -> None:
    """Wait until nobody else has written the bucket in a transaction that is open, or more than a few buckets."""
    # In the order in which writers take them.
    cursor.execute("SELECT pg_advisory_xact_lock(%s, %s)", [BUCKET_LOCK, bucket])
    cursor.execute("SELECT pg_advisory_xact_lock(%s, 0)", [SHARD_LOCK])


def change(
    cursor: Any,
    bucket: int,
    generation: int,
    expected: Set[BucketState | None],
    new: BucketState | None,
    *,
    epoch: int = 0,
    forward: str = "",
) -> bool:
    """
    Compare and set the state of a bucket; return whether it was as expected, and is ``new`` now.

    Args:
        generation: of the attempt, which must be no lower than the fence's.
        expected: the states from which it may change; None for no row.
        epoch: of the bucket map, since which it is so; 0 keeps the row's.
    """
    states = [str(state) for state in expected if state is not None]
    if new is None:
        cursor.execute(
            "DELETE FROM sharding_fence WHERE bucket = %s AND generation <= %s AND state = ANY(%s)",
            [bucket, generation, states],
        )
        if cursor.rowcount or None not in expected:
            return bool(cursor.rowcount)
        cursor.execute("SELECT NOT EXISTS (SELECT FROM sharding_fence WHERE bucket = %s)", [bucket])
        return bool(cursor.fetchone()[0])
    cursor.execute(
        "UPDATE sharding_fence SET state = %s, generation = %s, forward = %s, epoch = coalesce(nullif(%s, 0), epoch) "
        "WHERE bucket = %s AND generation <= %s AND state = ANY(%s)",
        [str(new), generation, forward, epoch, bucket, generation, states],
    )
    if cursor.rowcount or None not in expected:
        return bool(cursor.rowcount)
    cursor.execute(
        "INSERT INTO sharding_fence (bucket, state, epoch, generation, forward, mark) VALUES (%s, %s, %s, %s, %s, %s) "
        "ON CONFLICT (bucket) DO NOTHING",
        [bucket, str(new), epoch, generation, forward, mark_of(bucket)],
    )
    return bool(cursor.rowcount)


@contextmanager
def _limited(cursor: Any, milliseconds: int) -> Iterator[None]:
    cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{milliseconds}ms"])
    yield
    # What follows waits as long as the session allows.
    cursor.execute("SET LOCAL lock_timeout TO DEFAULT")

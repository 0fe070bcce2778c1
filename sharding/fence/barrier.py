"""
Change what buckets are on a shard, behind all who have written them.

A barrier has the buckets' locks and the shard's alone, so every transaction that wrote one of them has ended, and the
next one will read the new state. While it waits, new writers of the buckets wait too: it gives up soon, and tries again
later.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Set
from typing import Any, Final, TypeVar

from sharding.bucket_states import BucketState, mark_of
from sharding.fence.functions import BUCKET_LOCK, SHARD_LOCK

T = TypeVar("T")

#: Milliseconds that the attempts wait for a lock, and seconds of rest between two, of which a part is by chance.
WAITS: Final = (50, 50, 100, 100, 200, 200, 400, 400)
REST: Final = 0.1

#: All locks of an attempt together may take so many times as long as one.
_TOGETHER: Final = 1.25
#: Rows of buckets that are about to change, locked in the order in which everybody locks several of them.
_IN_ORDER: Final = "SELECT bucket FROM sharding_fence WHERE bucket = ANY(%s) ORDER BY bucket FOR UPDATE"
#: lock_not_available, deadlock_detected, and the query_canceled of a statement that takes too long.
_BUSY: Final = {"55P03", "40P01", "57014"}


def behind(
    connection: Any, buckets: int | Collection[int], act: Callable[[Any], T], *, waits: tuple[int, ...] = WAITS
) -> T:
    """
    Call ``act(cursor)`` in a transaction that has the barrier of a bucket, or of several, and return what it returns.

    Args:
        connection: psycopg's, in autocommit.
        waits: milliseconds of each attempt to get the locks.

    Raises:
        psycopg.errors.LockNotAvailable: somebody had written a bucket in a transaction that did not end, at the last
            attempt, too.
        psycopg.errors.QueryCanceled: several had, one of each bucket.
    """
    for number, wait in enumerate(waits, 1):
        try:
            with connection.transaction(), connection.cursor() as cursor:
                before = _limit(cursor, f"{wait}ms", f"{round(wait * _TOGETHER)}ms")
                lock(cursor, buckets)
                # What follows waits as long as the session does.
                _limit(cursor, *before)
                return act(cursor)
        except Exception as error:
            if getattr(error, "sqlstate", None) not in _BUSY or number == len(waits):
                raise
        time.sleep(REST * random.uniform(0.5, 1.5))
    raise ValueError("A barrier needs one attempt at least.")


def lock(cursor: Any, buckets: int | Collection[int]) -> None:
    """Wait until nobody else has written a bucket in a transaction that is open, or more than a few buckets."""
    numbers = _numbers(buckets)
    # In one order, so that no two barriers wait for each other; and the shard's last, as writers take it. In one
    # statement, which the limit of its time ends, however many they are.
    cursor.execute(
        "SELECT pg_advisory_xact_lock(kind, number) FROM unnest(%s::int[], %s::int[]) AS each (kind, number)",
        [[*[BUCKET_LOCK] * len(numbers), SHARD_LOCK], [*numbers, 0]],
    )


def change(
    cursor: Any,
    buckets: int | Collection[int],
    generation: int,
    expected: Set[BucketState | None],
    new: BucketState | None,
    *,
    epoch: int = 0,
    forward: str = "",
) -> bool:
    """
    Compare and set the state of a bucket, or of several; return whether it was as expected, and is ``new`` now.

    If it was not so of each bucket, the transaction is to be rolled back: the others are changed in it.

    Args:
        generation: of the attempt, which must be no lower than the fence's.
        expected: the states from which it may change; None for no row.
        epoch: of the bucket map, since which it is so; 0 keeps the row's.
    """
    numbers = _numbers(buckets)
    states = [str(state) for state in expected if state is not None]
    if new is None:
        cursor.execute(
            f"DELETE FROM sharding_fence WHERE bucket IN ({_IN_ORDER}) AND generation <= %s AND state = ANY(%s)",
            [numbers, generation, states],
        )
        if cursor.rowcount == len(numbers) or None not in expected:
            return bool(cursor.rowcount == len(numbers))
        cursor.execute("SELECT NOT EXISTS (SELECT FROM sharding_fence WHERE bucket = ANY(%s))", [numbers])
        return bool(cursor.fetchone()[0])
    cursor.execute(
        "UPDATE sharding_fence SET state = %s, generation = %s, forward = %s, epoch = coalesce(nullif(%s, 0), epoch) "
        f"WHERE bucket IN ({_IN_ORDER}) AND generation <= %s AND state = ANY(%s)",
        [str(new), generation, forward, epoch, numbers, generation, states],
    )
    changed = cursor.rowcount
    if changed < len(numbers) and None in expected:
        cursor.execute(
            "INSERT INTO sharding_fence (bucket, state, epoch, generation, forward, mark) "
            "SELECT bucket, %s, %s, %s, %s, mark FROM unnest(%s::smallint[], %s::bigint[]) AS each (bucket, mark) "
            "ON CONFLICT (bucket) DO NOTHING",
            [str(new), epoch, generation, forward, numbers, [mark_of(bucket) for bucket in numbers]],
        )
        changed += cursor.rowcount
    return bool(changed == len(numbers))


def _limit(cursor: Any, one: str, all_of_them: str) -> tuple[str, str]:
    """Limit how long a lock, and a statement, is waited for in this transaction; return the limits before."""
    cursor.execute("SELECT current_setting('lock_timeout'), current_setting('statement_timeout')")
    before: tuple[str, str] = cursor.fetchone()
    cursor.execute(
        "SELECT set_config('lock_timeout', %s, true), set_config('statement_timeout', %s, true)", [one, all_of_them]
    )
    return before


def _numbers(buckets: int | Collection[int]) -> list[int]:
    return sorted([buckets] if isinstance(buckets, int) else buckets)

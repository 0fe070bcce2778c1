"""
Notes that come after everybody who had read that notes are to be taken: they are waited for, and deleted.

A transaction reads the state of a bucket, which it has locked, and writes its notes then. If the state changes in
between, nobody needs them, and nobody would delete them before the bucket moves again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from sharding.fence.functions import BUCKET_LOCK, SHARD_LOCK
from sharding.rebalance.sessions import Session

#: Seconds after which a transaction that is still open may leave its notes.
LONGEST = 10.0
PAUSE = 0.02

_WRITERS = """
SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
AND (classid = %s::oid AND objid = ANY(%s::oid[]) OR classid = %s::oid AND objid = 0)
AND pid IS DISTINCT FROM pg_backend_pid()
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# State and notes are those of one instant: where nobody takes notes, these are nobody's, whatever comes later.
_DELETE = """
DELETE FROM sharding_dirty AS d WHERE bucket = ANY(%s)
AND NOT EXISTS (SELECT FROM sharding_fence AS f WHERE f.bucket = d.bucket AND state IN ('capturing', 'fenced'))
"""


def delete(session: Session, buckets: Collection[int], pause: Callable[[], None]) -> None:
    """
    Delete the notes of buckets of which none are taken any more, when all have ended who write one of them now.

    Args:
        pause: called from time to time; it may raise to stop.
    """
    earlier = _writers(session, buckets)
    until = time.monotonic() + LONGEST
    while earlier & _writers(session, buckets) and time.monotonic() < until:
        pause()
        time.sleep(PAUSE)
    discard(session, buckets)


def discard(session: Session, buckets: Collection[int]) -> None:
    """Delete the notes of buckets, unless they are being taken for somebody."""
    session.connection.execute(_DELETE, [[*buckets]])


def _writers(session: Session, buckets: Collection[int]) -> set[str]:
    found = session.connection.execute(_WRITERS, [BUCKET_LOCK, [*buckets], SHARD_LOCK]).fetchall()
    return {transaction for (transaction,) in found}

"""
Notes that come after everybody who had read that notes are to be taken: they are waited for, and deleted.

A transaction reads the state of a bucket, which it has locked, and writes its notes then. If the state changes in
between, nobody needs them, and nobody would delete them before the bucket moves again.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from sharding.fence.functions import BUCKET_LOCK, SHARD_LOCK
from sharding.rebalance.sessions import Session

#: Seconds after which a transaction that is still open may leave its notes.
LONGEST = 10.0
PAUSE = 0.02

_WRITERS = """
SELECT virtualtransaction FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 2 AND granted
AND (classid, objid) IN ((%s::oid, %s::oid), (%s::oid, 0::oid)) AND pid IS DISTINCT FROM pg_backend_pid()
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
# State and notes are those of one instant: where nobody takes notes, these are nobody's, whatever comes later.
_DELETE = """
DELETE FROM sharding_dirty WHERE bucket = %s
AND NOT EXISTS (SELECT FROM sharding_fence WHERE bucket = %s AND state IN ('capturing', 'fenced'))
"""


def delete(session: Session, bucket: int, pause: Callable[[], None]) -> None:
    """
    Delete the notes of a bucket of which none are taken any more, when all have ended who write it now.

    Args:
        pause: called from time to time; it may raise to stop.
    """
    earlier = _writers(session, bucket)
    until = time.monotonic() + LONGEST
    while earlier & _writers(session, bucket) and time.monotonic() < until:
        pause()
        time.sleep(PAUSE)
    discard(session, bucket)


def discard(session: Session, bucket: int) -> None:
    """Delete the notes of a bucket, unless they are being taken for somebody."""
    session.connection.execute(_DELETE, [bucket, bucket])


def _writers(session: Session, bucket: int) -> set[str]:
    found = session.connection.execute(_WRITERS, [BUCKET_LOCK, bucket, SHARD_LOCK]).fetchall()
    return {transaction for (transaction,) in found}

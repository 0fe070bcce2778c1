"""
When a mover lets the application go first: after each chunk, and as long as a shard is slow or its standbys lag.
"""

from __future__ import annotations

import time

from sharding.rebalance import standbys
from sharding.rebalance.attempt import Round
from sharding.rebalance.sessions import Session

#: Seconds of a pause after which a shard that was slow is asked again.
PAUSE = 0.2
#: Seconds between two looks at standbys.
LOOK_EVERY = 1.0


def rest(work: Round, worked: float) -> None:
    """Wait for the application's part of the time, and until both shards have caught their breath."""
    share = work.options.share
    time.sleep(worked * (1 - share) / share)
    while any(_is_busy(session, work) for session in (work.sessions.source, work.sessions.target)):
        work.look_up()
        time.sleep(PAUSE)


def _is_busy(session: Session, work: Round) -> bool:
    options = work.options
    if options.latency is not None and _latency(session) > options.latency:
        return True
    if options.replica_lag is None or time.monotonic() - work.looked.get(session.alias, 0.0) < LOOK_EVERY:
        return False
    lags = standbys.lag(session) > options.replica_lag
    if not lags:
        work.looked[session.alias] = time.monotonic()
    return lags


def _latency(session: Session) -> float:
    """Return how long the shard takes for a small statement that reads a table."""
    begun = time.monotonic()
    session.connection.execute("SELECT state FROM sharding_fence LIMIT 1").fetchall()
    return time.monotonic() - begun

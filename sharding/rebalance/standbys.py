"""
Whether the standbys of a shard have what was committed there: one that takes over without a fence would be open again.

Those that are synchronous have it once the commit returns. Of the others an ordinary role is told nothing, unless it
is a member of pg_monitor.
"""

from __future__ import annotations

from sharding.rebalance.sessions import Session

_POSITION = "SELECT CASE WHEN pg_is_in_recovery() THEN NULL ELSE pg_current_wal_insert_lsn() END::text"
_BEHIND = """
SELECT EXISTS (SELECT FROM pg_stat_replication WHERE state = 'streaming' AND application_name <> ''
               AND flush_lsn < %s::pg_lsn)
"""
_LAG = """
SELECT coalesce(extract(epoch FROM max(replay_lag)), 0)::float8 FROM pg_stat_replication WHERE state = 'streaming'
"""


def position(session: Session) -> str | None:
    """Return how far the shard's log has come."""
    ((lsn,),) = session.connection.execute(_POSITION).fetchall()
    return None if lsn is None else str(lsn)


def have(session: Session, lsn: str | None) -> bool:
    """Return whether no standby of which the role may know is behind a position."""
    if lsn is None:
        return True
    ((is_behind,),) = session.connection.execute(_BEHIND, [lsn]).fetchall()
    return not is_behind


def lag(session: Session) -> float:
    """Return by how many seconds the standby that is farthest behind is, 0.0 where the role knows of none."""
    ((seconds,),) = session.connection.execute(_LAG).fetchall()
    return float(seconds)

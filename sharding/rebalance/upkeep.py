"""
What tables need when many rows have come or gone: statistics that know of them, and the space of those that are gone.

Where somebody else is at it, or the table is locked, there is nothing to wait for: autovacuum does it one day.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from psycopg import errors
from psycopg.sql import SQL, Identifier

from sharding.rebalance.comparing import nothing
from sharding.rebalance.sessions import Session

#: That the role may not, that it takes too long, or that a part of a table is locked.
_REFUSED = (errors.InsufficientPrivilege, errors.QueryCanceled, errors.LockNotAvailable)


def vacuum(session: Session, tables: Iterable[str], pause: Callable[[], None] = nothing) -> list[str]:
    """
    Give back the space of what was deleted, and return the tables where that is not to be.

    Args:
        pause: called before each table; it may raise to stop.
    """
    return _each(session, SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}"), tables, pause)


def analyze(session: Session, tables: Iterable[str], pause: Callable[[], None] = nothing) -> list[str]:
    """
    Let the planner know what has arrived, and return the tables where that is not to be.

    By statistics that have never seen a key, its rows are few: the wrong plan for a tenant who has just arrived with
    a million.
    """
    return _each(session, SQL("ANALYZE (SKIP_LOCKED) {}"), tables, pause)


def _each(session: Session, command: SQL, tables: Iterable[str], pause: Callable[[], None]) -> list[str]:
    refused = []
    for table in tables:
        pause()
        try:
            session.connection.execute(command.format(Identifier(table)))
        except _REFUSED:
            refused.append(table)
    return refused

"""
What tables need when many rows have come or gone: statistics that know of them, and the space of those that are gone.

Where somebody else is at it, or the table is locked, there is nothing to wait for: autovacuum does it one day.
"""

from __future__ import annotations

from collections.abc import Iterable

import psycopg
from psycopg.sql import SQL, Identifier

from sharding.rebalance.sessions import Session


def vacuum(session: Session, tables: Iterable[str]) -> list[str]:
    """Give back the space of what was deleted, and return the tables where the role may not."""
    return _each(session, SQL("VACUUM (ANALYZE, SKIP_LOCKED) {}"), tables)


def analyze(session: Session, tables: Iterable[str]) -> list[str]:
    """
    Let the planner know what has arrived, and return the tables where the role may not.

    By statistics that have never seen a key, its rows are few: the wrong plan for a tenant who has just arrived with
    a million.
    """
    return _each(session, SQL("ANALYZE (SKIP_LOCKED) {}"), tables)


def _each(session: Session, command: SQL, tables: Iterable[str]) -> list[str]:
    refused = []
    for table in tables:
        try:
            session.connection.execute(command.format(Identifier(table)))
        except (psycopg.errors.InsufficientPrivilege, psycopg.errors.QueryCanceled):
            refused.append(table)
    return refused

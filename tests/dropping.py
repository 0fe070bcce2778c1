"""
Databases that were made for one test are dropped after it, whoever is still connected.
"""

from __future__ import annotations

import time
from typing import Any

import psycopg
from psycopg import sql

ATTEMPTS = 50


def drop_database(connection: Any, name: str) -> None:
    """Drop a database with its sessions. Those of autovacuum are no ordinary role's to end, and end by themselves."""
    for attempt in range(ATTEMPTS):
        try:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
            return
        except psycopg.errors.InsufficientPrivilege:
            if attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.1)

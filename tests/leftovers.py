"""
What a test run that was killed has left in its databases: a prepared transaction keeps one from being dropped.
"""

from __future__ import annotations

from typing import Any

from django.db import connections


def roll_back() -> None:
    """Roll back what is prepared in the databases that this run is about to make, on every server."""
    for connection in connections.all():
        if connection.vendor == "postgresql":
            _roll_back(connection)


def _roll_back(connection: Any) -> None:
    name = connection.settings_dict["TEST"]["NAME"] or f"test_{connection.settings_dict['NAME']}"
    with connection._nodb_cursor() as cursor:
        cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE database = %s", [name])
        gids = [gid for (gid,) in cursor.fetchall()]
    if not gids:
        return
    there = connection.copy()
    there.settings_dict["NAME"] = name
    try:
        with there.cursor() as cursor:
            for gid in gids:
                cursor.execute(f"ROLLBACK PREPARED '{gid}'")
    finally:
        there.close()

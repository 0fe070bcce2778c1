"""
Connections of recovery's own, beside those of the application's thread; and what their errors mean.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import connections

from sharding import cluster_map, conf, env

#: SQLSTATE of COMMIT PREPARED and ROLLBACK PREPARED when there is no such transaction (any more).
UNDEFINED_OBJECT = "42704"
#: SQLSTATE of the same while another session is ending it.
NOT_IN_PREREQUISITE_STATE = "55000"


@contextmanager
def session(alias: str) -> Iterator[Any]:
    """Yield a cursor of a new connection to ``alias``, in autocommit, past a pooler where its address is known."""
    connection = cluster_map.connection_of(alias).copy()
    connection.settings_dict = {**env.direct(connection.settings_dict), "AUTOCOMMIT": True}
    try:
        with connection.cursor() as cursor:
            yield cursor
    finally:
        connection.close()
        if connection.connection is not None:
            # Django never closes a SQLite database in memory, but this is not the connection that keeps it.
            connection.connection.close()


def aliases() -> list[str]:
    """Return every database that may hold prepared transactions of ours: PostgreSQL, and no replica."""
    found = [alias for alias in connections if conf.REPLICA_INFIX not in alias]
    return sorted(alias for alias in found if connections[alias].vendor == "postgresql")


def is_lost(connection: Any) -> bool:
    """Return whether the session behind a connection wrapper is known to be gone."""
    raw = connection.connection
    return raw is None or bool(raw.closed)


def is_refusal(error: BaseException) -> bool:
    """Return whether a server has answered that it did not do what it was asked, rather than no answer was had."""
    state = getattr(error.__cause__, "sqlstate", None)
    # Errors of the connection are also told by poolers, and 57P0x by a server that is going down.
    return state is not None and not state.startswith(("08", "57P0"))


def is_finished(error: BaseException) -> bool:
    """Return whether a prepared transaction could not be ended because somebody has ended it already."""
    return getattr(error.__cause__, "sqlstate", None) == UNDEFINED_OBJECT


def is_being_finished(error: BaseException) -> bool:
    """Return whether a prepared transaction could not be ended because somebody is just ending it."""
    return getattr(error.__cause__, "sqlstate", None) == NOT_IN_PREREQUISITE_STATE

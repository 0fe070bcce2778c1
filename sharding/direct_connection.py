"""
Connections of the commands that change schemas: straight to the server, past any pooler, and for one thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.utils import load_backend

from sharding import env
from sharding.conf import SHARD_PREFIX
from sharding.conflicts import is_busy
from sharding.errors import PooledConnection

#: Seconds until a server that does not answer counts as down, where its OPTIONS do not say.
CONNECT_TIMEOUT = 3


@contextmanager
def direct_connection(alias: str, *, lock_timeout: float | None = None) -> Iterator[Any]:
    """
    Let ``connections[alias]`` of this thread be a new direct connection inside, and yield it, open.

    A statement that waits longer than ``lock_timeout`` seconds for a lock fails; None leaves the server's setting.

    Raises:
        PooledConnection: a pooler stands between, which would hand this session's settings and locks to others.
    """
    made = _made(alias, lock_timeout)
    before = connections[alias]
    connections[alias] = made
    try:
        made.ensure_connection()
        if made.vendor == "postgresql":
            refuse_pooler(alias, made.connection)
            if lock_timeout is not None:
                with made.cursor() as cursor:
                    cursor.execute("SELECT set_config('lock_timeout', %s, false)", [f"{round(lock_timeout * 1000)}ms"])
        yield made
    finally:
        connections[alias] = before
        made.close()


def is_locked_out(error: BaseException) -> bool:
    """Return whether a statement failed only because others held its locks for too long, so that it may be repeated."""
    # lock_not_available and deadlock_detected.
    return getattr(error.__cause__, "sqlstate", None) in {"55P03", "40P01"} or is_busy(error)


def _made(alias: str, lock_timeout: float | None) -> Any:
    settings = env.direct(connections.settings[alias])
    backend: Any = load_backend(settings["ENGINE"])
    options = dict(settings["OPTIONS"])
    vendor = backend.DatabaseWrapper.vendor
    if vendor == "postgresql":
        options.setdefault("connect_timeout", CONNECT_TIMEOUT)
        # Django keeps one pool an alias, and its connections have other settings than these.
        options.pop("pool", None)
    elif vendor == "sqlite" and lock_timeout is not None:
        options["timeout"] = lock_timeout
    return backend.DatabaseWrapper({**settings, "OPTIONS": options}, alias)


def refuse_pooler(alias: str, connection: Any) -> None:
    """Raise PooledConnection where a driver's connection to ``alias`` does not lead to a session of its own."""
    # A pooler tells its clients a process number of its own making.
    if connection.execute("SELECT pg_backend_pid()").fetchone()[0] != connection.info.backend_pid:
        raise PooledConnection(
            f"{alias!r} is reached through a connection pooler, which shares one session among many clients. "
            f"Give the server's own address in {direct_variable(alias)}.",
            alias=alias,
        )


def direct_variable(alias: str) -> str:
    """Return the environment variable that holds the own address of the server of ``alias``."""
    if alias == DEFAULT_DB_ALIAS:
        return "DATABASE_URL__DIRECT"
    if alias.startswith(SHARD_PREFIX):
        return f"SHARD_URL_{alias.removeprefix(SHARD_PREFIX).upper()}__DIRECT"
    return f"DATABASE_URL_{alias.removesuffix('_db').upper()}__DIRECT"

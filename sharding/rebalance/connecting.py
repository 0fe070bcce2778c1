"""
How a mover connects: by psycopg connections of its own, so that no setting, hook or cursor of the application's has a
part in them.

Whatever the role, the database or the server sets, values look alike in all: equal values are equal as text.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import sql

from sharding import cluster_map, env
from sharding.backends import failures
from sharding.direct_connection import CONNECT_TIMEOUT, refuse_pooler

#: How values are written as text, and what else could make two sessions differ.
PINNED = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "extra_float_digits": "1",
    "bytea_output": "hex",
    "lc_monetary": "C",
    "xmlbinary": "base64",
    "standard_conforming_strings": "on",
    # A fence that a standby lacks would be open again once it takes over.
    "synchronous_commit": "on",
    # Whoever waits for a lock is to read what was committed meanwhile.
    "default_transaction_isolation": "read committed",
    # One session waits while another one works.
    "idle_session_timeout": "0",
}
#: By the version of the server from which on there is such a setting: a large table is compared in one transaction.
PINNED_SINCE = {170000: {"transaction_timeout": "0"}}

#: Seconds that one statement may take, and that a transaction may wait for its mover: one that hangs gives way.
STATEMENT_TIMEOUT = 600.0
IDLE_TIMEOUT = 60.0
#: Seconds that a statement waits for a lock; the application's transactions come first.
LOCK_TIMEOUT = 10.0


def connect(alias: str, name: str) -> psycopg.Connection[tuple[Any, ...]]:
    """
    Return a new connection to a database, in autocommit, whose application_name is ``name``.

    Raises:
        UnknownShard: DATABASES lacks the alias.
        psycopg.OperationalError: the server does not answer.
    """
    wrapper = cluster_map.connection_of(alias).copy()
    wrapper.settings_dict = env.direct(wrapper.settings_dict)
    params: dict[str, Any] = wrapper.get_connection_params()
    # Django's adapters and its cursor, which puts values into the text of a statement.
    for own in ("context", "cursor_factory", "prepare_threshold"):
        params.pop(own, None)
    params.setdefault("connect_timeout", CONNECT_TIMEOUT)
    # A plan that was made for one bucket is not used for others.
    params |= {"application_name": name, "autocommit": True, "prepare_threshold": None}
    try:
        connection: psycopg.Connection[tuple[Any, ...]] = psycopg.connect(**params)
    except psycopg.OperationalError as error:
        failures.note_where(error, alias)
        raise
    role = wrapper.settings_dict["OPTIONS"].get("assume_role")
    if role:
        connection.execute(sql.SQL("SET ROLE {}").format(sql.Identifier(role)))
    return connection


def pin(alias: str, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
    """
    Settle what could make two sessions differ, whatever the role, the database and the server say.

    Raises:
        PooledConnection: a pooler stands between, which would hand the session to others.
    """
    refuse_pooler(alias, connection)
    timeouts = {
        "statement_timeout": STATEMENT_TIMEOUT,
        "idle_in_transaction_session_timeout": IDLE_TIMEOUT,
        "lock_timeout": LOCK_TIMEOUT,
    }
    settings = PINNED | {name: f"{round(seconds * 1000)}ms" for name, seconds in timeouts.items()}
    for version, more in PINNED_SINCE.items():
        if connection.info.server_version >= version:
            settings |= more
    calls: Sequence[sql.Composable] = [
        sql.SQL("set_config({}, {}, false)").format(sql.Literal(name), sql.Literal(value))
        for name, value in settings.items()
    ]
    connection.execute(sql.SQL("SELECT {}").format(sql.SQL(", ").join(calls)))

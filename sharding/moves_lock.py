"""
Migrations and moves keep each other out: rows that go from server to server, and tables that change under them.

Each side has an advisory lock in the control database, shared among its own, and then looks for the other's. What
counts beyond the locks is whether a move has begun: its rows are on two shards until it is over.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any, Final

from django.db import DEFAULT_DB_ALIAS, OperationalError

from sharding.direct_connection import direct_connection
from sharding.errors import MigrationFailed

#: First key of the advisory locks, and the second of whoever moves buckets and of whoever migrates.
LOCK: Final = 0x534C
MOVING, MIGRATING = 0, 1

_OTHERS: Final = """
SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid = %s AND objsubid = 2 AND granted
AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
_BEGUN: Final = "SELECT count(*) FROM sharding_move WHERE phase NOT IN ('planned', 'done', 'aborted')"


def enter(cursor: Any, own: int, other: int) -> bool:
    """Have a lock until the session ends, and return whether none of the other kind is there."""
    cursor.execute("SELECT pg_advisory_lock_shared(%s, %s)", [LOCK, own])
    cursor.execute(_OTHERS, [LOCK, other])
    ((others,),) = cursor.fetchall()
    return not others


@contextmanager
def without_moves() -> Iterator[None]:
    """
    Let no mover work inside. A control database that does not answer keeps none of them busy.

    Raises:
        MigrationFailed: one does, or a move has begun and is not over.
    """
    with ExitStack() as stack:
        try:
            # The lock ends with it.
            connection = stack.enter_context(direct_connection(DEFAULT_DB_ALIAS))
        except OperationalError:
            pass
        else:
            if connection.vendor == "postgresql":
                _enter(connection)
        yield


def _enter(connection: Any) -> None:
    with connection.cursor() as cursor:
        if not enter(cursor, MIGRATING, MOVING):
            raise MigrationFailed(
                "Buckets are being moved, so nothing is migrated. Let the movers end, or stop them: "
                "what they have begun is gone on with later.",
                failures={},
            )
        cursor.execute("SELECT to_regclass('sharding_move') IS NOT NULL")
        ((is_there,),) = cursor.fetchall()
        begun = 0
        if is_there:
            cursor.execute(_BEGUN)
            ((begun,),) = cursor.fetchall()
    if begun:
        raise MigrationFailed(
            f"{begun} {'move has' if begun == 1 else 'moves have'} begun and not ended, so that rows are on two "
            f"shards, and nothing is migrated. Run `manage.py rebalance apply --end-windows` until all have ended, or "
            f"`manage.py rebalance abort`.",
            failures={},
        )

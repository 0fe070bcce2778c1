"""The connections that recovery makes for itself are closed, also those to a SQLite database in memory."""

from __future__ import annotations

import sqlite3

import pytest
from django.db import connections

from sharding.commits.sessions import session

pytestmark = pytest.mark.django_db(databases=["default", "shard_a"], transaction=True)


def test_a_session_is_closed_at_its_end() -> None:
    with session("shard_a") as cursor:
        raw = cursor.db.connection
        cursor.execute("SELECT 1")
        assert raw is not connections["shard_a"].connection
    if connections["shard_a"].vendor == "sqlite":
        # An open one would be closed by the garbage collector, which deadlocks inside a function of SQLite's.
        with pytest.raises(sqlite3.ProgrammingError, match="Cannot operate on a closed database"):
            raw.execute("SELECT 1")
    else:
        assert raw.closed

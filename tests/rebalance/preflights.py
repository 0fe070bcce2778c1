"""
A cluster on which everything is ready for moves, and how a test spoils one thing of it and puts it back.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import connections

from sharding.rebalance import preflight
from sharding.rebalance.finding import Finding
from sharding.rebalance.sessions import Session, open_inspection

SOURCE, TARGET = "shard_a", "shard_b"
PAIRS = [(SOURCE, TARGET)]
BUCKETS = [0, 3]


@pytest.fixture
def ready(transactional_db: None) -> None:
    """Fences around all shards, as everywhere."""


def found(**options: Any) -> list[tuple[str, str, str]]:
    """Return what is found before moves from SOURCE to TARGET."""
    return [_plain(each) for each in preflight.findings(PAIRS, BUCKETS, **options)]


def _plain(each: Finding) -> tuple[str, str, str]:
    return (each.severity.value, each.check, each.message)


@contextmanager
def spoilt(alias: str, statement: str, undo: str) -> Iterator[Session]:
    """Let a statement have been executed on a database inside, and undo it in the end."""
    with open_inspection(alias) as session:
        session.connection.execute(statement)  # type: ignore[call-overload]
        try:
            yield session
        finally:
            session.connection.execute(undo)  # type: ignore[call-overload]


def alone(alias: str) -> None:
    """Wait until a database has no session: a server takes a while to end one that was closed."""
    query = "SELECT count(*) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    until = time.monotonic() + 60
    with connections[alias].copy()._nodb_cursor() as cursor:
        while True:
            cursor.execute(query, [name_of(alias)])
            if cursor.fetchone() == (0,):
                return
            assert time.monotonic() < until
            time.sleep(0.01)


def name_of(alias: str) -> str:
    """Return the name of a shard's database."""
    return str(connections[alias].settings_dict["NAME"])

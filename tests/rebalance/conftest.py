"""A move between two servers, with tables of every kind whose writes are logged, and nothing copied yet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import servers
from tests.rebalance.worlds import TABLES, World, drop, make

# Only PostgreSQL has moves.
ON_SERVERS = [
    "test_capturing.py",
    "test_constraints.py",
    "test_copying.py",
    "test_copying_killed.py",
    "test_copying_live.py",
    "test_plan_command.py",
    "test_preflight.py",
    "test_preflight_standby.py",
    "test_preflight_tables.py",
    "test_purging.py",
    "test_sessions.py",
    "test_tables.py",
    "test_verifying.py",
]
collect_ignore = [] if servers.engine == "postgresql" else ON_SERVERS


@pytest.fixture(scope="package")
def _tables(django_db_setup: None) -> Iterator[None]:
    drop()
    make()
    yield
    drop()


@pytest.fixture
def world(_tables: None) -> Iterator[World]:
    """Bucket 7 is capturing on shard_a, importing on shard_b, and in the hands of attempt 11."""
    with World.opened() as world:
        yield world


__all__ = ["TABLES"]

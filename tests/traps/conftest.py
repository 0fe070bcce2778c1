"""Three shards, and a shard key on each."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from sharding.testing import cluster
from tests import servers
from tests.layouts import tenant_on

collect_ignore_glob = [] if servers.engine == "postgresql" else ["test_*.py"]


@pytest.fixture(scope="module", autouse=True)
def owners(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*servers.SHARDS):
        yield


@pytest.fixture
def tenants(owners: None, db: None) -> list[int]:
    """A shard key that lives on each of the shards."""
    return [tenant_on(alias) for alias in servers.SHARDS]

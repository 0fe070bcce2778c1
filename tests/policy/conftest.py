"""Sixteen orders on four databases, committed: four shards that can be slow, paused, cut off or down."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db import connections

from sharding.testing import cluster
from tests import servers
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Order

# SQLite has no sessions that could be paused, cancelled or ended.
collect_ignore = (
    []
    if servers.engine == "postgresql"
    else ["test_deadlines.py", "test_faults.py", "test_snapshots.py", "test_streams.py"]
)


@pytest.fixture(scope="module", autouse=True)
def layout(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*CLUSTER):
        yield


@pytest.fixture(autouse=True)
def orders(layout: None, transactional_db: None) -> Iterator[None]:
    """Four orders on each shard, of which the totals are 0 to 15."""
    places = [(alias, place) for place in range(4) for alias in CLUSTER]
    Order.objects.bulk_create(
        [Order(tenant_id=tenant_on(*where), total=total, status=where[0]) for total, where in enumerate(places)]
    )
    yield
    assert not any(connections[alias].allow_thread_sharing for alias in CLUSTER)
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)

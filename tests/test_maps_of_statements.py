"""
A statement for several shards goes by one map, though another thread learns of a move between two shards.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest
from django.db import connections
from django.db.models import F

from aggregator import fan_out
from sharding import bucket_of, cluster_map
from sharding.bucket_states import mark_of
from sharding.models import BucketOwner, Cluster, Fence
from sharding.testing import cluster
from tests import moved_rows, servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.skipif(servers.engine != "postgresql", reason="only PostgreSQL has fences"),
]


def _go(bucket: int, source: str, target: str) -> None:
    """Let a bucket go to a shard that was asked already, and let this process hear of it."""
    epoch = cluster_map.current().epoch + 1
    facts = {"mark": mark_of(bucket), "generation": moved_rows.GENERATION, "epoch": epoch}
    Fence.objects.using(target).update_or_create(bucket=bucket, defaults={**facts, "state": "importing"})
    moved_rows.copy(Order, bucket, source, target)
    Cluster.objects.using("default").update(epoch=epoch)
    BucketOwner.objects.using("default").filter(bucket=bucket).update(shard=target, epoch=epoch)
    Fence.objects.using(target).filter(bucket=bucket).update(state="owned")
    Fence.objects.using(source).filter(bucket=bucket).update(state="moved", forward=target)
    cluster_map.refresh()


def test_each_row_is_written_once() -> None:
    with cluster.owners("shard_a", "shard_b"):
        tenants = [tenant_on("shard_a"), tenant_on("shard_b")]
        for tenant in tenants:
            Order.objects.bulk_create([Order(tenant_id=tenant, total=total) for total in range(3)])
        moved: list[int] = []
        bucket = bucket_of(tenants[1], model=Order)

        def between(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
            result = execute(sql, params, many, context)
            if not moved and sql.startswith("UPDATE"):
                moved.append(bucket)
                _elsewhere(lambda: _go(bucket, "shard_b", "shard_a"))
            return result

        with connections["shard_a"].execute_wrapper(between):
            found = fan_out(Order.objects).update(total=F("total") + 10)
        assert moved
        assert found == 6
        totals = sorted(int(total) for total in fan_out(Order.objects).values_list("total", flat=True))
        assert totals == [10, 10, 11, 11, 12, 12]


def _elsewhere(act: Callable[[], object]) -> None:
    def run() -> None:
        try:
            act()
        finally:
            connections.close_all()

    thread = Thread(target=run)
    thread.start()
    thread.join()

"""
Many statements over whole tables at once, beside a move: each writes more buckets than a server has room to lock.
"""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import pytest
from django.db import connections
from django.db.models import F

import sharding
from aggregator import fan_out
from sharding import bucket_of
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY, tenants_on
from tests.moving.scenes import MAP_TTL
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]

CLIENTS = 50
#: More than one transaction locks one by one.
BUCKETS = 80
#: Locks for which a server has room by default: 64 for each of 100 sessions.
ROOM = 6400


def test_fifty_updates_of_whole_tables(scene):
    Order.objects.bulk_create(
        [
            Order(tenant_id=tenant, status=str(client), quantity=0)
            for tenant in _tenants(scene.tenant)
            for client in range(CLIENTS)
        ]
    )
    over = threading.Event()
    with ThreadPoolExecutor(CLIENTS + 1) as clients:
        most = clients.submit(_most_locks, over)
        acknowledged = [clients.submit(_update, client, over) for client in range(CLIENTS)]
        try:
            _carry(scene)
        finally:
            over.set()
        times = [each.result() for each in acknowledged]
        assert most.result() < ROOM
    assert min(times) > 1
    found = fan_out(Order.objects).filter(quantity__isnull=False).values_list("status", "quantity")
    assert sorted(found) == sorted((str(client), number) for client, number in enumerate(times) for _ in range(BUCKETS))
    assert scene.states() == (None, "owned")


def _tenants(first):
    buckets = {bucket_of(first, model=Order): first}
    for tenant in islice(tenants_on("shard_a"), 4 * BUCKETS):
        buckets.setdefault(bucket_of(tenant, model=Order), tenant)
    assert len(buckets) > BUCKETS
    return list(buckets.values())[:BUCKETS]


def _update(client, over):
    """Update until the move is through, and return how often it was done."""
    rows = fan_out(Order.objects).filter(status=str(client))
    update = sharding.retry(lambda: rows.update(quantity=F("quantity") + 1))
    times = 0
    try:
        while times < 2 or not over.is_set():
            assert update() == BUCKETS
            times += 1
        return times
    finally:
        connections.close_all()


def _most_locks(over):
    """Return the most locks that were held on the source at one instant."""
    most = 0
    try:
        with connections["shard_a"].cursor() as cursor:
            while not over.is_set():
                cursor.execute("SELECT count(*) FROM pg_locks")
                most = max(most, cursor.fetchone()[0])
                time.sleep(0.05)
        return most
    finally:
        connections.close_all()


def _carry(scene):
    until = time.monotonic() + 200
    while time.monotonic() < until:
        scene.mover().run()
        if scene.move.phase == Phase.DONE:
            return
        time.sleep(MAP_TTL)
    raise AssertionError(f"The move stays in {scene.move.phase}: {scene.move.error}")

"""
Several movers at several moves: each is done once, and no shard has more of them than it may.
"""

from __future__ import annotations

import time
from collections import Counter

import pytest

from sharding import bucket_of, cluster_map
from sharding.models import Move
from sharding.rebalance import claiming, registering
from sharding.rebalance.mover import Mover
from sharding.rebalance.options import Options
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.moving import victims
from tests.moving.applications import session
from tests.moving.scenes import MAP_TTL, control_session, fenced_cluster, plan_of
from tests.moving.ways import PATIENCE
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]
PAIRS = [("shard_a", "shard_b"), ("shard_a", "shard_c"), ("shard_b", "shard_c"), ("default", "shard_a")]


@pytest.mark.parametrize("per_shard", [1, 2])
def test_movers_side_by_side(transactional_db, per_shard):
    with fenced_cluster():
        tenants = {tenant_on(source, place): target for place, (source, target) in enumerate(PAIRS * 2)}
        for tenant in tenants:
            Order.objects.create(tenant_id=tenant, total=tenant)
        buckets = {bucket_of(tenant, model=Order): target for tenant, target in tenants.items()}
        assert len(buckets) == len(PAIRS) * 2
        with control_session() as control:
            registering.register(control, plan_of(cluster_map.refresh(), *buckets.items()))
        time.sleep(MAP_TTL)
        options = Options(window=0.0, share=1.0, latency=None, per_shard=per_shard)

        def work(say):
            def heard(move, step):
                pairs = looking.execute(claiming._IN_HAND, [claiming.MOVE_LOCK]).fetchall()
                say([move.bucket, type(step).__name__, [alias for _, _, *pair in pairs for alias in pair]])

            deadline = time.monotonic() + PATIENCE
            with session("default") as looking:
                while time.monotonic() < deadline:
                    Mover(options, heard=heard).run()
                    if looking.execute("SELECT count(*) FROM sharding_move WHERE phase <> 'done'").fetchone() == (0,):
                        return
                    time.sleep(0.01)
            raise AssertionError("The moves do not end.")

        workers = [victims.start(work) for _ in range(3)]
        said = [list(worker.said()) for worker in workers]
        assert [worker.end() for worker in workers] == [0, 0, 0]
        done = Counter((bucket, step) for each in said for bucket, step, _ in each if step != "Claim")
        assert {bucket for bucket, _ in done} == buckets.keys()
        assert set(done.values()) == {1}
        assert len(done) == 15 * len(buckets)
        assert max(Counter(aliases).most_common(1)[0][1] for each in said for _, _, aliases in each) == per_shard
        for move in Move.objects.using("default"):
            assert (move.phase, move.error, move.failures) == ("done", "", 0)
        found = cluster_map.refresh()
        assert {bucket: found.owner(bucket) for bucket in buckets} == buckets
        assert [Order.objects.get(tenant_id=tenant).total for tenant in tenants] == [*tenants]

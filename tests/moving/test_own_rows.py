"""A data migration finds the rows of its database, without those that the database keeps for moves."""

from __future__ import annotations

import pytest
from django.db.models import Sum

from sharding import routing
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.test_mover import run
from tests.shop.models import Order, OrderTag

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.mark.parametrize("alias", ["shard_a", "shard_b"])
def test_a_migration_leaves_out_rows_that_its_database_hides(scene, alias):
    scene.options = Options(window=600.0, share=1.0, latency=None)
    run(scene, until=[Phase.WINDOW])
    own = 3 if alias == "shard_b" else 0
    before = scene.rows("shard_a")
    with routing.migrating(alias):
        orders = Order.objects.using(alias)
        assert orders.count() == len(orders.all()) == own
        assert orders.aggregate(total=Sum("total"))["total"] == (3 if own else None)
        assert orders.update(status="seen") == own
        assert orders.filter(status="seen").exists() is bool(own)
        assert orders.filter(tags__isnull=True).delete()[0] == 0
        OrderTag.objects.using(alias)._raw_delete(alias)
        assert not OrderTag.objects.using(alias).exists()
    assert scene.rows("shard_a") == before
    assert len(scene.rows("shard_b").get("OrderTag", [])) == 3 - own

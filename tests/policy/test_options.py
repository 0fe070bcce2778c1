"""What fan_out() takes beside the queryset: which shards, how many at once, and values that it refuses."""

from __future__ import annotations

import math
import threading
from typing import Any

import pytest
from django.db import connections
from django.db.models import Avg, Sum

from aggregator import executor, explain, fan_out
from aggregator.policy import Policy
from sharding.errors import UnknownShard
from sharding.testing import cluster
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests import servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

A, B = (4 * 1 + 24), (4 * 2 + 24)  # the sums of shard_a's and shard_b's totals


def test_some_shards() -> None:
    orders = fan_out(Order.objects, shards=["shard_a", "shard_b"])
    with assert_statements({"shard_a": 1, "shard_b": 1}):
        assert {order.status for order in orders} == {"shard_a", "shard_b"}
    assert orders.count() == 8
    assert orders.aggregate(Sum("total"), Avg("total")) == {"total__sum": A + B, "total__avg": (A + B) / 8}
    assert explain(orders).shards == ("shard_a", "shard_b")


def test_one_shard() -> None:
    orders = fan_out(Order.objects, shards=iter(["shard_a"]))
    with assert_statements({"shard_a": 1}):
        assert {order.status for order in orders} == {"shard_a"}
    with assert_statements({"default": 1}):
        assert fan_out(Order.objects, shards=["default"]).count() == 4


def test_keys_on_other_shards() -> None:
    """The rows of the named shards alone, whatever the filter names."""
    a, b = tenant_on("shard_a"), tenant_on("shard_b")
    orders = fan_out(Order.objects, shards=["shard_a"])
    assert orders.filter(tenant_id=a).count() == 1
    assert orders.filter(tenant_id=b).count() == 0
    assert orders.filter(tenant_id=b).aggregate(Sum("total")) == {"total__sum": None}
    assert orders.filter(tenant_id__in=[a, b]).get().status == "shard_a"
    assert orders.filter(tenant_id__in=[b, tenant_on("shard_c")]).count() == 0


def test_a_shard_without_buckets() -> None:
    with cluster.owners("default", "shard_b", "shard_c"):
        assert list(fan_out(Order.objects.filter(total__lt=0), shards=["shard_a"])) == []
        assert explain(fan_out(Order.objects, shards=["shard_a"])).shards == ("shard_a",)


def test_writes_to_some_shards() -> None:
    assert fan_out(Order.objects, shards=["shard_a"]).update(quantity=7) == 4
    assert fan_out(Order.objects, shards=["shard_a", "shard_b"]).filter(tenant_id=tenant_on("shard_b")).delete()[0] == 1
    assert fan_out(Order.objects.filter(quantity=7)).count() == 4
    assert fan_out(Order.objects).count() == 15


def test_one_key_is_no_fan_out() -> None:
    with assert_no_fan_out():
        assert fan_out(Order.objects, timeout=60).filter(tenant_id=tenant_on("shard_b")).count() == 1


def test_as_many_at_once_as_allowed() -> None:
    running: list[int] = []
    most: list[int] = []

    def work(connection: Any) -> None:
        running.append(1)
        most.append(len(running))
        # As many as there may be wait for each other, and for a moment for one too many.
        together.wait()
        threading.Event().wait(0.02)
        running.pop()

    for lanes in (1, 2):
        most.clear()
        together = threading.Barrier(lanes if servers.engine == "postgresql" else 1, timeout=60)
        with executor.participating(connections["default"], CLUSTER, Policy(max_parallel=lanes)) as found:
            executor.run(found, work)
        assert max(most) == (lanes if servers.engine == "postgresql" else 1)
    assert fan_out(Order.objects, max_parallel=1).count() == 16


SECONDS = "timeout must be a number of seconds from 0.001 to 2147483, or math.inf, not "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"timeout": 0}, f"{SECONDS}0."),
        ({"timeout": -1}, f"{SECONDS}-1."),
        ({"timeout": True}, f"{SECONDS}True."),
        ({"timeout": "2"}, f"{SECONDS}'2'."),
        ({"timeout": math.nan}, f"{SECONDS}nan."),
        ({"timeout": 2147484}, f"{SECONDS}2147484."),
        ({"on_error": "ignore"}, "on_error must be 'raise' or 'partial', not 'ignore'."),
        ({"max_parallel": 0}, "max_parallel must be a positive integer, not 0."),
        ({"max_parallel": 1.5}, "max_parallel must be a positive integer, not 1.5."),
        ({"shards": []}, "shards must name at least one shard; leave it out to ask all of them."),
        ({"shards": "shard_a"}, "shards must be a list of aliases, not the text 'shard_a'."),
    ],
)
def test_refused_values(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=whole(message)):
        fan_out(Order.objects, **options)


def test_a_stranger() -> None:
    message = whole("'reference' is no shard of this cluster. Its shards are default, shard_a, shard_b, shard_c.")
    with pytest.raises(UnknownShard, match=message) as caught:
        fan_out(Order.objects, shards=["shard_a", "reference"])
    assert caught.value.alias == "reference"

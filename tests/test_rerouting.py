"""
Statements of a process that does not know yet where a bucket has gone: they reach it, or say that the block may be
repeated, and never take what the former owner still has for the truth.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any

import pytest
from django.conf import settings
from django.db import connections, transaction
from django.db.models import Count, Sum
from django.test import override_settings

import sharding
from aggregator import fan_out
from sharding import bucket_of, cluster_map
from sharding.bucket_states import BucketState, mark_of
from sharding.errors import BucketFenced, BucketMoved, EpochChanged
from sharding.models import BucketOwner, Cluster, Fence
from sharding.testing import cluster
from tests import moved_rows, servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.skipif(servers.engine != "postgresql", reason="only PostgreSQL has fences"),
]
TARGET = "shard_b"


class Stale:
    """A tenant whose bucket has gone from one shard to another, of which this process has not heard."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.tenant = tenant_on(source)
        self.bucket = bucket_of(self.tenant, model=Order)
        self.orders = [Order.objects.create(tenant_id=self.tenant, total=number) for number in range(3)]
        self.known = cluster_map.current()

    def go(self) -> None:
        """Let the bucket go, as a move does that somebody else makes."""
        epoch = self.known.epoch + 1
        self.set(TARGET, "importing", generation=moved_rows.GENERATION)
        moved_rows.copy(Order, self.bucket, self.source, TARGET)
        Cluster.objects.using("default").update(epoch=epoch)
        BucketOwner.objects.using("default").filter(bucket=self.bucket).update(shard=TARGET, epoch=epoch)
        self.set(TARGET, "owned", epoch=epoch)
        self.set(self.source, "moved", epoch=epoch, forward=TARGET)

    def set(self, alias: str, state: str, **facts: Any) -> None:
        mark = {"mark": mark_of(self.bucket), "epoch": self.known.epoch}
        Fence.objects.using(alias).update_or_create(
            bucket=self.bucket, defaults={"state": state, **facts}, create_defaults={"state": state, **mark, **facts}
        )

    def there(self) -> Any:
        """Return what the new owner has."""
        return Order.objects.using(TARGET).filter(tenant_id=self.tenant)


@pytest.fixture(params=["shard_a", "default"])
def stale(request: pytest.FixtureRequest, transactional_db: None) -> Iterator[Stale]:
    with (
        override_settings(SHARDING={**settings.SHARDING, "MOVE_WAIT": 0.5}),
        cluster.owners(*CLUSTER),
    ):
        yield Stale(request.param)
    cluster_map.refresh()


@contextmanager
def informed() -> Iterator[None]:
    """Inside, the process knows the stored map; afterwards it has its old one again."""
    known = cluster_map._loaded
    cluster_map.refresh()
    try:
        yield
    finally:
        cluster_map._loaded = known


READS: dict[str, Callable[[Any], Any]] = {
    "rows": lambda orders: [order.total for order in orders.order_by("total")],
    "values": lambda orders: list(orders.order_by("total").values_list("total", flat=True)),
    "a stream": lambda orders: [order.total for order in orders.order_by("total").iterator(chunk_size=2)],
    "a count": lambda orders: list(range(orders.count())),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_reads(read: Callable[[Any], Any], stale: Stale) -> None:
    stale.go()
    assert [int(each) for each in read(Order.objects.filter(tenant_id=stale.tenant))] == [0, 1, 2]


@pytest.mark.parametrize(
    "read",
    [
        lambda orders: orders.exists(),
        lambda orders: orders.count(),
        lambda orders: orders.first(),
        lambda orders: list(orders.iterator()),
        lambda orders: orders.aggregate(n=Sum("total"))["n"],
        lambda orders: orders.update(quantity=7),
        lambda orders: orders.delete()[0],
    ],
    ids=["exists", "count", "first", "stream", "sum", "update", "delete"],
)
def test_nothing_is_not_believed(read: Callable[[Any], Any], stale: Stale) -> None:
    """The former owner says that there is no such row."""
    stale.go()
    with informed():
        Order.objects.create(tenant_id=stale.tenant, status="new there", total=5)
    assert read(Order.objects.filter(tenant_id=stale.tenant, status="new there"))


def test_writes(stale: Stale) -> None:
    stale.go()
    assert Order.objects.filter(tenant_id=stale.tenant, total=1).update(quantity=9) == 1
    assert Order.objects.filter(tenant_id=stale.tenant, total=2).delete() == (1, {"shop.Order": 1})
    assert sorted(stale.there().values_list("total", "quantity")) == [(0, None), (1, 9)]


def test_a_save(stale: Stale) -> None:
    stale.go()
    stale.orders[0].quantity = 4
    stale.orders[0].save()
    assert stale.there().get(total=0).quantity == 4


def test_inserts(stale: Stale) -> None:
    stale.go()
    Order.objects.create(tenant_id=stale.tenant, total=10)
    assert stale.there().filter(total=10).count() == 1
    assert cluster_map.current().owner(stale.bucket) == TARGET


def test_inserts_on_several_shards(stale: Stale) -> None:
    other = tenant_on("shard_c")
    stale.go()

    # What a block has begun on the control database can be undone with the whole block only.
    @sharding.retry
    def block() -> None:
        Order.objects.bulk_create([Order(tenant_id=tenant, total=11) for tenant in (stale.tenant, other, stale.tenant)])

    (block if stale.source == "default" else block.__wrapped__)()
    assert stale.there().filter(total=11).count() == 2
    assert Order.objects.filter(tenant_id=other, total=11).count() == 1


def test_the_first_statement_of_a_block_on_a_shard(stale: Stale) -> None:
    """It goes again; on the control database, whose transaction is the block's own, the block has to be repeated."""
    calls = []

    @sharding.retry
    def block() -> None:
        calls.append(1)
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=tenant_on("shard_c"), total=12)
            assert Order.objects.filter(tenant_id=stale.tenant).update(quantity=3) == 3

    stale.go()
    block()
    assert len(calls) == (2 if stale.source == "default" else 1)
    assert stale.there().filter(quantity=3).count() == 3
    assert Order.objects.filter(tenant_id=tenant_on("shard_c"), total=12).count() == 1


def test_a_later_statement_of_a_block(stale: Stale) -> None:
    """What was done on the shard before cannot be undone by itself, so that the block is repeated."""
    calls = []
    neighbour = tenant_on(stale.source, 1)

    @sharding.retry
    def block() -> None:
        calls.append(1)
        with transaction.atomic(using="default"):
            Order.objects.create(tenant_id=neighbour, total=13)
            Order.objects.filter(tenant_id=stale.tenant).update(quantity=3)

    stale.go()
    block()
    assert len(calls) == 2
    assert stale.there().filter(quantity=3).count() == 3
    assert Order.objects.filter(tenant_id=neighbour, total=13).count() == 1


def test_a_later_statement_raises(stale: Stale) -> None:
    stale.go()
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=tenant_on(stale.source, 1), total=13)
        with pytest.raises(BucketMoved) as caught:
            Order.objects.filter(tenant_id=stale.tenant).update(quantity=3)
        transaction.set_rollback(True, using="default")
    assert (caught.value.alias, caught.value.forward, caught.value.bucket) == (stale.source, TARGET, stale.bucket)
    assert str(caught.value) == (
        f"The bucket {stale.bucket} has moved from {stale.source!r} to {TARGET!r}. Repeat the block; sharding.retry "
        f"does so."
    )


def test_a_bucket_that_is_about_to_go(stale: Stale) -> None:
    stale.set(stale.source, "fenced")
    with pytest.raises(BucketFenced) as caught:
        Order.objects.create(tenant_id=stale.tenant)
    assert caught.value.state == BucketState.FENCED
    assert str(caught.value) == (
        f"The bucket {stale.bucket} is on its way, and is fenced on {stale.source!r}. Repeat the block; "
        f"sharding.retry does so."
    )
    assert Order.objects.filter(tenant_id=stale.tenant).count() == 3


def test_a_bucket_that_stays_after_all(stale: Stale) -> None:
    stale.set(stale.source, "fenced")
    over = Timer(0.1, in_thread, (lambda: stale.set(stale.source, "owned"),))
    with override_settings(SHARDING={**settings.SHARDING, "MOVE_WAIT": 20}):
        cluster_map.current()
        over.start()
        Order.objects.create(tenant_id=stale.tenant, total=14)
    over.join()
    assert Order.objects.filter(tenant_id=stale.tenant, total=14).count() == 1


def in_thread(work: Callable[[], None]) -> None:
    try:
        work()
    finally:
        connections.close_all()


def test_a_shard_that_has_not_got_the_bucket(stale: Stale) -> None:
    """It has a part of the rows, or all, or none: what it says is not believed."""
    stale.set(stale.source, "importing", generation=1)
    with pytest.raises(BucketFenced):
        Order.objects.create(tenant_id=stale.tenant)
    with pytest.raises(EpochChanged):
        Order.objects.filter(tenant_id=stale.tenant, total=99).exists()


def test_a_shard_that_knows_nothing_of_the_bucket(stale: Stale) -> None:
    Fence.objects.using(stale.source).filter(bucket=stale.bucket).delete()
    with pytest.raises(BucketFenced) as caught:
        Order.objects.create(tenant_id=stale.tenant)
    assert caught.value.state == "unknown"
    assert "knows nothing of the bucket" in str(caught.value)


@pytest.mark.parametrize("write", [lambda orders: orders.update(quantity=8), lambda orders: orders.delete()[0]])
def test_what_is_purged_is_not_believed_to_be_gone(write: Callable[[Any], int], stale: Stale) -> None:
    """The former owner has neither rows of the bucket nor a word on it; no trigger sees what finds no row."""
    stale.go()
    purge(stale)
    assert write(Order.objects.filter(tenant_id=stale.tenant)) == 3


def test_a_block_that_is_older_than_the_purge(stale: Stale) -> None:
    """It has its map for as long as it is open, and comes to the former owner when all is over."""

    @sharding.retry
    def block() -> int:
        with transaction.atomic(using="default"):
            return int(Order.objects.filter(tenant_id=stale.tenant).count())

    stale.go()
    purge(stale)
    assert block() == 3


def purge(stale: Stale) -> None:
    """Do what a move does last."""
    moved_rows.purge(Order, stale.bucket, stale.source)
    Fence.objects.using(stale.source).filter(bucket=stale.bucket).delete()


def test_fan_outs(stale: Stale) -> None:
    before = fan_out(Order.objects).count()
    stale.go()
    assert fan_out(Order.objects).count() == before
    assert fan_out(Order.objects).filter(tenant_id=stale.tenant).update(quantity=2) == 3
    assert dict(fan_out(Order.objects).values_list("tenant_id").annotate(n=Count("pk")))[stale.tenant] == 3

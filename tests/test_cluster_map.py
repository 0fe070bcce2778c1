"""
The map in memory: when it is read, when it is kept, and what is said when it cannot be used.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest
from django.db import OperationalError, connections, transaction
from django.test import override_settings

from sharding import cluster_map, shard_of
from sharding.bucket_map import BucketMap
from sharding.control import BucketOwner, Cluster
from sharding.errors import MapConflict, MapMissing, UnknownShard
from sharding.map_reading import Loaded
from sharding.testing import cluster
from sharding.testing.statements import statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True)


@pytest.fixture(autouse=True)
def _fresh_map() -> Iterator[None]:
    cluster_map.refresh()
    yield
    cluster_map.forget()


def _expire() -> None:
    """Let the map in memory be as old as MAP_TTL allows."""
    loaded = cluster_map._loaded
    assert loaded is not None
    cluster_map._loaded = Loaded(loaded.map, loaded.numbers, time.monotonic())


def test_young_map_costs_no_statement() -> None:
    with statements() as sent:
        cluster_map.current()
    assert dict(sent) == {}


def test_old_map_is_read_again() -> None:
    """What another process wrote is seen once the map is older than MAP_TTL, and not before."""
    before = cluster_map.current()
    other = next(alias for alias in ("shard_a", "shard_b") if alias != before.owner(7))
    BucketOwner.objects.filter(bucket=7).update(shard=other)
    Cluster.objects.update(epoch=before.epoch + 1)
    try:
        assert cluster_map.current() is before
        _expire()
        assert cluster_map.current().owner(7) == other
        assert cluster_map.current().epoch == before.epoch + 1
    finally:
        cluster.write(before.owners)


def test_old_map_is_read_again_before_a_block() -> None:
    """Or a process that does all its work inside of blocks, one for each request, would keep its first map for ever."""
    before = cluster_map.current()
    other = next(alias for alias in ("shard_a", "shard_b") if alias != before.owner(7))
    BucketOwner.objects.filter(bucket=7).update(shard=other)
    Cluster.objects.update(epoch=before.epoch + 1)
    try:
        _expire()
        with transaction.atomic(using="default"):
            assert cluster_map.current().owner(7) == other
    finally:
        cluster.write(before.owners)


def test_old_map_of_the_same_epoch_is_kept() -> None:
    """One row tells that nothing has changed; the 4096 others are not read."""
    before = cluster_map.current()
    _expire()
    with statements() as sent:
        assert cluster_map.current() is before
    assert not any("sharding_bucket" in sql for sql in sent["default"])


def test_map_never_changes_inside_a_block() -> None:
    before = cluster_map.current()
    with transaction.atomic(using="default"):
        _expire()
        with statements() as sent:
            assert cluster_map.current() is before
        assert dict(sent) == {}


def test_map_stays_in_use_while_the_control_database_is_down(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The warning says so, and the next try comes seconds later, not with the next query."""
    before = cluster_map.current()
    door = connections["default"]

    def refuse() -> None:
        raise OperationalError("connection refused")

    door.close()
    monkeypatch.setattr(door, "ensure_connection", refuse)
    # However long it takes until the map is asked for again.
    monkeypatch.setattr(cluster_map, "RETRY", 3600.0)
    _expire()
    with caplog.at_level(logging.WARNING, logger="sharding"):
        assert cluster_map.current() is before
        assert cluster_map.current() is before
    assert [record.getMessage() for record in caplog.records] == [
        f"The bucket map could not be refreshed from the control database (OperationalError); "
        f"epoch {before.epoch} stays in use."
    ]


def test_missing_map() -> None:
    rows = list(Cluster.objects.all())
    Cluster.objects.all().delete()
    try:
        with pytest.raises(MapMissing) as caught:
            cluster_map.refresh()
    finally:
        Cluster.objects.bulk_create(rows)
    assert str(caught.value) == (
        "The control database holds no bucket map, but there are shards: shard_a, shard_b, shard_c. "
        "Run `manage.py migrate_all` and then `manage.py shards init`."
    )


def test_cluster_of_one_needs_no_map() -> None:
    rows = list(Cluster.objects.all())
    Cluster.objects.all().delete()
    try:
        with override_settings(SHARDING={"SHARDS": []}):
            assert cluster_map.refresh() == BucketMap.whole("default", 4096)
            assert shard_of(42) == "default"
            assert cluster_map.shard_number("default") == 0
    finally:
        Cluster.objects.bulk_create(rows)


def test_a_process_of_a_cluster_of_one_notices_that_shards_were_added(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or one that was forgotten when all others got the shards would find nothing where the rows were."""
    rows = list(Cluster.objects.all())
    Cluster.objects.all().delete()
    try:
        with override_settings(SHARDING={"SHARDS": []}):
            cluster_map.refresh()
            with statements() as sent:
                assert cluster_map.current() == BucketMap.whole("default", 4096)
            assert dict(sent) == {}
            _expire()
            with statements() as sent:
                assert cluster_map.current() == BucketMap.whole("default", 4096)
            assert [len(found) for found in sent.values()] == [1]
            Cluster.objects.bulk_create(rows)
            assert cluster_map.current().epoch == 0
            _expire()
            assert cluster_map.current().epoch > 0
            # Nobody has told it where the shard is.
            kept = connections["shard_a"]
            del connections["shard_a"]
            monkeypatch.delitem(connections.settings, "shard_a")
            with pytest.raises(UnknownShard, match="names the shard 'shard_a', which is not in DATABASES"):
                list(Order.objects.filter(tenant_id=tenant_on("shard_a")))
            monkeypatch.undo()
            connections["shard_a"] = kept
    finally:
        Cluster.objects.bulk_create(rows, ignore_conflicts=True)


@pytest.mark.parametrize(
    ("setting", "said"),
    [({"BUCKETS": 3072}, "BUCKETS=3072 and HASH='mmh3'"), ({"HASH": "identity"}, "BUCKETS=4096 and HASH='identity'")],
)
def test_changed_settings(setting: dict[str, object], said: str) -> None:
    message = (
        f"This cluster was initialised with BUCKETS=4096 and HASH='mmh3', but SHARDING says {said}. "
        f"They never change: put the former back."
    )
    sharding = {"SHARDS": ["shard_a", "shard_b", "shard_c"], **setting}
    with override_settings(SHARDING=sharding), pytest.raises(MapConflict, match=whole(message)):
        cluster_map.refresh()


def test_torn_map() -> None:
    lost = BucketOwner.objects.get(bucket=5)
    lost_row = (lost.bucket, lost.shard, lost.epoch)
    BucketOwner.objects.filter(bucket=5).delete()
    cluster_map.forget()
    try:
        message = (
            "The bucket map holds 4095 of 4096 buckets. "
            "Restore the table sharding_bucket of the control database from a backup."
        )
        with pytest.raises(MapConflict, match=whole(message)):
            cluster_map.current()
    finally:
        BucketOwner.objects.create(bucket=lost_row[0], shard=lost_row[1], epoch=lost_row[2])


def test_map_names_an_alias_that_is_gone() -> None:
    message = (
        "The bucket map names the shard 'shard_z', which is not in DATABASES. "
        "Declare it again (for example by SHARD_URL_Z); its rows are there."
    )
    with pytest.raises(UnknownShard, match=whole(message)):
        cluster_map.connection_of("shard_z")


def test_shard_without_a_number() -> None:
    message = (
        "The shard 'shard_z' has no number in the control database, so it cannot make ids. "
        "Run `manage.py shards init` to make it known."
    )
    with pytest.raises(UnknownShard, match=whole(message)):
        cluster_map.shard_number("shard_z")

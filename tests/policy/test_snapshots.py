"""
What becomes of a question while a bucket changes its shard: each shard must show what the sender's map says.

Under stricter isolation, snapshots of the shards may be of different epochs of the bucket map for as long as a block.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import DataError, InternalError, OperationalError, connections, transaction
from django.db.models import Avg, Count, F, Window
from django.db.models.functions import RowNumber
from django.test import override_settings
from psycopg import IsolationLevel

from aggregator import fan_out
from sharding import cluster_map, conflicts, isolation
from sharding.errors import EpochChanged
from sharding.testing import assert_statements
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.policy.trouble import session
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)
READS: dict[str, Any] = {
    "rows": lambda: sorted(order.total for order in fan_out(Order.objects)),
    "a stream": lambda: sorted(order.total for order in fan_out(Order.objects).iterator(chunk_size=2)),
    "an average": lambda: fan_out(Order.objects).aggregate(Avg("total")),
    "groups": lambda: sorted(fan_out(Order.objects).values_list("status").annotate(n=Count("pk"))),
    "gathered rows": lambda: len(fan_out(Order.objects).annotate(n=Window(RowNumber(), order_by="total"))),
    "one of the shards": lambda: fan_out(Order.objects, shards=["shard_b"]).count(),
}
STRICT = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


@pytest.fixture(autouse=True)
def little_patience(orders: None) -> Iterator[None]:
    with patience(0.3):
        yield


@contextmanager
def patience(seconds: float) -> Iterator[None]:
    with override_settings(SHARDING={**settings.SHARDING, "MOVE_WAIT": seconds}):
        cluster_map.current()
        yield


@pytest.fixture(params=[*STRICT, "of the server"], ids=str)
def strict(request: Any, orders: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with isolated(request.param, monkeypatch):
        yield


@contextmanager
def isolated(level: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the sessions of this thread have an isolation level, by Django's option or by the server's default."""
    for alias in CLUSTER:
        connections[alias].close()
        connections[alias].ensure_connection()
        raw = connections[alias].connection
        if level == "of the server":
            raw.execute("SET default_transaction_isolation = 'repeatable read'")
            monkeypatch.setitem(isolation._defaults, alias, "repeatable read")
        else:
            raw.isolation_level = level
    try:
        yield
    finally:
        for alias in CLUSTER:
            connections[alias].close()


@pytest.fixture
def moved(orders: None) -> Iterator[Any]:
    """Let a shard show one bucket less than it did, as a move does that somebody else makes."""
    shown = json.loads(cluster_map.shown())
    for alias in CLUSTER:
        set_shown(alias, shown[alias])
    yield lambda alias, less=1: set_shown(alias, shown[alias] - less)
    # Without a number, a fence would refuse nothing to any later test.
    for alias in CLUSTER:
        set_shown(alias, shown[alias])


def set_shown(alias: str, shown: int) -> None:
    with session(alias) as other:
        other.execute("UPDATE sharding_identity SET shown = %s", (shown,))


def first_look(alias: str) -> None:
    Order.objects.filter(tenant_id=tenant_on(alias)).exists()


def test_snapshots_before_and_after_a_change(strict: None, moved: Any) -> None:
    epoch = cluster_map.current().epoch
    message = whole(
        f"The shard 'shard_b' shows other buckets than the bucket map of epoch {epoch} says, since one is moving. "
        f"Repeat the block; sharding.retry does so."
    )
    with transaction.atomic(using="default"):
        first_look("shard_a")
        moved("shard_b")
        first_look("shard_b")
        with pytest.raises(EpochChanged, match=message) as caught:
            fan_out(Order.objects).count()
        transaction.set_rollback(True, using="default")
    assert conflicts.retryable(caught.value)
    assert caught.value.alias == "shard_b"
    assert isinstance(caught.value, OperationalError)


@pytest.mark.parametrize("pooler", [False, True], ids=["cursors", "batches"])
def test_streams_of_snapshots_before_and_after_a_change(strict: None, moved: Any, pooler: bool) -> None:
    door = connections["default"].settings_dict
    with transaction.atomic(using="default"), patch.dict(door, DISABLE_SERVER_SIDE_CURSORS=pooler):
        first_look("shard_a")
        moved("shard_b")
        with pytest.raises(EpochChanged):
            list(fan_out(Order.objects).order_by("total").iterator(chunk_size=2))
        transaction.set_rollback(True, using="default")


def test_no_shard_is_missing_that_shows_others(moved: Any) -> None:
    """A part of an answer is for shards that do not answer."""
    moved("shard_b")
    with pytest.raises(EpochChanged):
        list(fan_out(Order.objects, on_error="partial"))


def test_a_change_after_all_snapshots_is_not_seen(strict: None, moved: Any) -> None:
    with transaction.atomic(using="default"):
        assert fan_out(Order.objects).count() == 16
        moved("shard_b")
        assert fan_out(Order.objects).count() == 16
        assert fan_out(Order.objects).aggregate(n=Count("pk"))["n"] == 16


def test_one_shard_is_asked_nothing(strict: None, moved: Any) -> None:
    with transaction.atomic(using="default"):
        first_look("shard_a")
        moved("shard_b")
        first_look("shard_b")


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_each_statement_asks_again(read: Any, moved: Any) -> None:
    """Under READ COMMITTED: until the shard shows what the map says, or it takes too long."""
    moved("shard_b")
    with pytest.raises(EpochChanged):
        read()
    for alias in CLUSTER:
        assert connections[alias].connection.info.transaction_status.name == "IDLE"


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_it_is_sent_again_when_the_move_is_over(read: Any, moved: Any) -> None:
    expected = read()
    moved("shard_b")
    over = Timer(0.1, moved, ("shard_b", 0))
    with patience(20):
        over.start()
        try:
            assert read() == expected
        finally:
            over.join()


def test_a_write_is_sent_again(moved: Any) -> None:
    moved("shard_b")
    over = Timer(0.1, moved, ("shard_b", 0))
    with patience(20):
        over.start()
        assert fan_out(Order.objects).filter(total__lt=8).update(quantity=5) == 8
    over.join()
    assert fan_out(Order.objects).filter(quantity=5).count() == 8


def test_no_statement_of_the_callers_is_counted(strict: None) -> None:
    with transaction.atomic(using="default"), assert_statements(dict.fromkeys(CLUSTER, 1)):
        assert len(fan_out(Order.objects)) == 16


def test_a_block_that_begins_with_a_fan_out(orders: None) -> None:
    """Of a process that has just begun: nothing is connected."""
    for alias in CLUSTER:
        connections[alias].close()
    with transaction.atomic(using="default"):
        assert fan_out(Order.objects).count() == 16


@pytest.mark.parametrize("level", STRICT, ids=str)
def test_a_strict_block_that_begins_with_a_fan_out(level: IsolationLevel, orders: None) -> None:
    for alias in CLUSTER:
        connections[alias].close()
        connections[alias].isolation_level = level  # type: ignore[attr-defined]
        connections[alias].settings_dict["OPTIONS"]["isolation_level"] = level
    try:
        with transaction.atomic(using="default"):
            assert fan_out(Order.objects).count() == 16
    finally:
        for alias in CLUSTER:
            connections[alias].close()
            del connections[alias].settings_dict["OPTIONS"]["isolation_level"]


def test_a_block_that_has_failed_says_so(orders: None) -> None:
    connections["shard_a"].close()
    with transaction.atomic(using="default"):
        with pytest.raises(DataError):
            list(fan_out(Order.objects).annotate(wrong=1 / (F("total") * 0)))
        with pytest.raises(InternalError, match="current transaction is aborted"):
            fan_out(Order.objects).count()
        transaction.set_rollback(True, using="default")

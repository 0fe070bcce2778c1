"""Blocks under stricter isolation, whose snapshots of the shards are of different epochs of the bucket map."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DataError, InternalError, connections, transaction
from django.db.models import Count, F
from psycopg import IsolationLevel

from aggregator import fan_out
from sharding import conflicts
from sharding.errors import EpochChanged
from sharding.testing import assert_statements
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.policy.trouble import session
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)
STRICT = [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE]


@pytest.fixture(params=[*STRICT, "of the server"], ids=str)
def strict(request: Any, orders: None) -> Iterator[None]:
    with isolated(request.param):
        yield


@contextmanager
def isolated(level: Any) -> Iterator[None]:
    """Let the sessions of this thread have an isolation level, by Django's option or by the server's default."""
    for alias in CLUSTER:
        connections[alias].close()
        connections[alias].ensure_connection()
        raw = connections[alias].connection
        if level == "of the server":
            raw.execute("SET default_transaction_isolation = 'repeatable read'")
        else:
            raw.isolation_level = level
    try:
        yield
    finally:
        for alias in CLUSTER:
            connections[alias].close()


def set_epoch(alias: str, change: int) -> None:
    """As a move does that somebody else makes."""
    with session(alias) as other:
        other.execute("UPDATE sharding_identity SET epoch = epoch + %s", (change,))


@pytest.fixture
def moved() -> Iterator[Any]:
    changed: list[str] = []

    def move(alias: str) -> None:
        changed.append(alias)
        set_epoch(alias, 1)

    yield move
    for alias in changed:
        set_epoch(alias, -1)


def first_look(alias: str) -> None:
    Order.objects.filter(tenant_id=tenant_on(alias)).exists()


def test_snapshots_before_and_after_a_change(strict: None, moved: Any) -> None:
    message = whole(
        "The bucket map changed while this block began, so that its snapshots of the shards do not fit together: they "
        "show the epochs default 1, shard_a 1, shard_b 2, shard_c 1. Repeat the block; sharding.retry does so."
    )
    with transaction.atomic(using="default"):
        first_look("shard_a")
        moved("shard_b")
        with pytest.raises(EpochChanged, match=message) as caught:
            fan_out(Order.objects).count()
    assert conflicts.retryable(caught.value)
    assert caught.value.epochs["shard_b"] == 2


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


def test_read_committed_sees_the_rows_of_each_statement(moved: Any) -> None:
    with transaction.atomic(using="default"):
        first_look("shard_a")
        moved("shard_b")
        assert fan_out(Order.objects).count() == 16


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

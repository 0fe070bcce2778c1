"""
Statements look for hidden rows where a shard may hide some, and only there: a shard that does hide rows refuses those
that do not look, and nobody notices.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from threading import Event, Thread
from typing import Any
from unittest.mock import patch

import pytest
from django.conf import settings
from django.db import DatabaseError, connections, transaction
from django.db.models import Count, Subquery, Window
from django.db.models.functions import RowNumber
from django.test import override_settings
from psycopg import IsolationLevel

import sharding
from aggregator import fan_out
from sharding import cluster_map, live_moves, ownership
from sharding.errors import EpochChanged
from sharding.fence import raising
from sharding.models import Move
from sharding.rebalance.phases import FINAL, Phase
from sharding.testing import cluster
from sharding.testing.statements import statements
from tests import moved_rows, servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.shop.models import Order
from tests.unfenced import without_fences

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.skipif(servers.engine != "postgresql", reason="only PostgreSQL has fences"),
]
#: Which own all buckets, so that a block has nothing to do on the control database.
OWNERS = servers.SHARDS
READS: dict[str, Callable[[], Any]] = {
    "rows": lambda: sorted(int(order.total) for order in _all()),
    "a page": lambda: [int(order.total) for order in _all().order_by("total")[:6]],
    "a stream": lambda: sorted(int(order.total) for order in _all().iterator(chunk_size=2)),
    "a count": lambda: list(range(_all().count())),
    "groups": lambda: sorted(int(total) for total, n in _all().values_list("total").annotate(n=Count("pk")) if n == 1),
    "rows of which a shard has not all": lambda: sorted(
        int(order.total) for order in _all().filter(total__gte=Subquery(_all().values("total").order_by("total")[:1]))
    ),
    "gathered rows": lambda: sorted(int(order.total) for order in _all().annotate(n=Window(RowNumber()))),
}
ALL = list(range(6))


@pytest.fixture(scope="module", params=["with a fence", "without"])
def has_fence(request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: Any) -> Iterator[bool]:
    """Whether a shard's fence counts what it hides."""
    if request.param == "with a fence":
        yield True
        return
    with django_db_blocker.unblock(), without_fences(CLUSTER):
        pass
    yield False
    with django_db_blocker.unblock():
        for alias in CLUSTER:
            raising.raise_around(alias)
            raising.follow_map(alias)


@pytest.fixture(autouse=True)
def orders(has_fence: bool, transactional_db: None) -> Iterator[None]:
    """Two orders on each shard."""
    with (
        override_settings(SHARDING={**settings.SHARDING, "FENCE": "row" if has_fence else None}),
        cluster.owners(*OWNERS),
    ):
        places = [(alias, place) for place in range(2) for alias in OWNERS]
        Order.objects.bulk_create(
            [Order(tenant_id=tenant_on(*where), total=total, status=where[0]) for total, where in enumerate(places)]
        )
        cluster_map.refresh()
        # Whatever was refused before.
        assert _all().count() == 6
        yield
    cluster_map.refresh()


def _all() -> Any:
    return fan_out(Order.objects)


def _sent(ask: Callable[[], object], alias: str = "shard_a") -> list[bool]:
    """Return of each statement for several shards that one was sent whether it looked for hidden rows."""
    with statements() as sent:
        ask()
    return ["sharding_fence" in sql for sql in sent[alias] if ownership.SHOWS in sql]


def _hiding() -> Any:
    """Let each shard have rows that it hides, and nobody know of it."""
    return moved_rows.on_the_next_shard([Order])


@contextmanager
def _known_to_hide() -> Iterator[None]:
    with _hiding():
        _all().count()
        yield


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_nobody_looks_where_nothing_moves(read: Callable[[], Any]) -> None:
    assert read() == ALL
    assert not any(_sent(read))


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_who_does_not_look_is_refused_and_asks_again(read: Callable[[], Any]) -> None:
    with _hiding():
        assert read() == ALL
        sent = _sent(read)
    assert sent
    assert all(sent)


def test_one_of_the_shards() -> None:
    with _hiding():
        assert _sent(lambda: fan_out(Order.objects, shards=["shard_a"]).count()) == [False, True]
        assert fan_out(Order.objects, shards=["shard_a"]).count() == 2


def test_a_later_reading_tries_again() -> None:
    with _known_to_hide():
        assert _sent(_all().count) == [True]
        cluster_map.refresh()
        assert _sent(_all().count) == [False, True]
    assert _sent(_all().count) == [True]
    cluster_map.refresh()
    assert _sent(_all().count) == [False]


@pytest.mark.parametrize("phase", sorted(set(Phase)))
def test_a_move_that_is_known(phase: Phase) -> None:
    """Nobody is refused who has read the map since the move was recorded."""
    move = Move.objects.create(plan=uuid.uuid4(), bucket=1, source="shard_a", target="shard_b", phase=phase)
    try:
        cluster_map.refresh()
        assert _sent(_all().count) == [phase not in FINAL]
    finally:
        move.delete()
    cluster_map.refresh()
    assert _sent(_all().count) == [False]


def test_the_phases_after_which_nothing_is_hidden() -> None:
    assert set(live_moves.ENDED) == FINAL


def test_an_old_map() -> None:
    """Inside of a block the map is not read again, however long that takes."""
    with transaction.atomic(using="default"):
        cluster_map.expire()
        assert _sent(_all().count) == [True]
    assert _sent(_all().count) == [False]


def test_a_control_database_that_is_down() -> None:
    cluster_map.expire()
    with patch.object(cluster_map, "_load", side_effect=DatabaseError):
        assert _sent(_all().count) == [True]
    cluster_map.refresh()
    assert _sent(_all().count) == [False]


def test_writes_look_always() -> None:
    with _hiding():
        assert _sent(lambda: _all().update(quantity=1)) == [True]
        assert _sent(lambda: _all()._raw_delete("default")) == [True]
    assert not Order.objects.filter(tenant_id=tenant_on("shard_a")).exists()


# In blocks


def test_the_first_statement_of_a_block() -> None:
    with _hiding(), transaction.atomic(using="default"):
        assert _all().count() == 6
        assert _sent(_all().count) == [True]


def test_a_later_statement_of_a_block() -> None:
    """
    It has aborted what the block did on a shard, which need not be the first one that refuses; this happens only where
    a move did not wait for MAP_TTL.
    """
    calls = []

    @sharding.retry
    def block() -> None:
        calls.append(1)
        with transaction.atomic(using="default"):
            Order.objects.filter(tenant_id=tenant_on("shard_b")).update(quantity=3)
            assert _all().count() == 6

    message = whole(
        "The shard 'shard_a' hides rows of a bucket that is moving, of which this process had not heard. Repeat the "
        "block; sharding.retry does so."
    )
    with _hiding():
        with pytest.raises(EpochChanged, match=message) as caught:
            block.__wrapped__()
        assert caught.value.alias == "shard_a"
        block()
    assert len(calls) == 2
    assert Order.objects.filter(quantity=3, tenant_id=tenant_on("shard_b")).count() == 1


def test_a_block_that_has_begun_tries_nothing() -> None:
    with _known_to_hide():
        cluster_map.refresh()
        with transaction.atomic(using="default"):
            Order.objects.filter(tenant_id=tenant_on("shard_b")).update(quantity=3)
            assert _sent(_all().count) == [True]
            assert _all().count() == 6


def test_a_block_of_a_test_case_tries_nothing() -> None:
    """Its transactions cannot be undone before its end."""
    with _known_to_hide(), _of_a_test_case():
        cluster_map.refresh()
        assert _sent(_all().count) == [True]


@contextmanager
def _of_a_test_case() -> Iterator[None]:
    blocks = [transaction.atomic(using=alias) for alias in CLUSTER]
    with ExitStack() as stack:
        for block in blocks:
            block._from_testcase = True
            stack.enter_context(block)
        yield


def test_a_snapshot_from_before() -> None:
    """It has none of the rows, and nothing that would hide them."""
    with _isolated():
        other = _Other()
        with transaction.atomic(using="default"):
            assert _all().count() == 6
            other.start()
            other.hides.wait()
            try:
                assert _sent(_all().count) == [False]
                assert _all().count() == 6
            finally:
                other.may_end.set()
        other.join()


class _Other(Thread):
    """A mover, who has sessions of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.hides, self.may_end = Event(), Event()

    def run(self) -> None:
        try:
            with _hiding():
                self.hides.set()
                self.may_end.wait()
        finally:
            self.hides.set()
            connections.close_all()


@contextmanager
def _isolated() -> Iterator[None]:
    for alias in CLUSTER:
        connections[alias].close()
        connections[alias].ensure_connection()
        connections[alias].connection.isolation_level = IsolationLevel.REPEATABLE_READ
    try:
        yield
    finally:
        for alias in CLUSTER:
            connections[alias].close()


# Streams


@pytest.mark.parametrize("pooler", [False, True], ids=["cursors", "batches"])
def test_a_stream_in_which_a_move_begins(pooler: bool) -> None:
    """Each batch is a statement by itself, and cannot be sent again."""
    door = connections["default"].settings_dict
    with patch.dict(door, DISABLE_SERVER_SIDE_CURSORS=pooler):
        stream = iter(_all().order_by("total").iterator(chunk_size=2))
        found = [next(stream)]
        with _hiding():
            found += stream
    assert [int(order.total) for order in found] == ALL

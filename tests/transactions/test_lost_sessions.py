"""
Sessions that the server ends in the middle of a block, as a failover does. SQLite has no sessions to end.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction
from django.db.transaction import TransactionManagementError

from tests.blocks import undone
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere, stored

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def _kill(alias: str) -> None:
    """Let the server end this thread's session, as a failover would."""
    pid = connections[alias].connection.info.backend_pid

    def terminate() -> None:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])

    elsewhere(terminate)


@contextmanager
def _reopened(*aliases: str) -> Iterator[None]:
    try:
        yield
    finally:
        for alias in aliases:
            connections[alias].close()


def _write(rows: Rows) -> None:
    Order.objects.create(tenant_id=rows.a, status="lost")
    Order.objects.filter(tenant_id=rows.b).count()


@pytest.mark.parametrize("lost", ["shard_a", "shard_b"])
def test_a_shard_that_is_lost_before_a_statement(lost: str, rows: Rows) -> None:
    before = stored()
    tenant = {"shard_a": rows.a, "shard_b": rows.b}[lost]

    def block() -> None:
        with transaction.atomic(using="default"):
            _write(rows)
            _kill(lost)
            Order.objects.filter(tenant_id=tenant).count()

    with _reopened(lost), pytest.raises(DatabaseError):
        block()
    assert stored() == before


def test_a_shard_that_is_lost_before_the_commit(rows: Rows) -> None:
    before = stored()

    def block() -> None:
        with transaction.atomic(using="default"):
            _write(rows)
            _kill("shard_a")

    with _reopened("shard_a"), pytest.raises(DatabaseError):
        block()
    assert stored() == before


def test_a_shard_that_is_lost_inside_a_nested_block(rows: Rows) -> None:
    """As with Django's own backend, the outer block is broken and rolled back at its end."""
    before = stored()
    with _reopened("shard_a"), transaction.atomic(using="default"):
        _write(rows)
        with undone():
            Order.objects.create(tenant_id=rows.a)
            _kill("shard_a")
        with pytest.raises(TransactionManagementError):
            Order.objects.filter(tenant_id=rows.b).count()
    assert stored() == before


def test_a_control_database_that_is_lost_before_the_commit(rows: Rows) -> None:
    before = stored()

    def block() -> None:
        with transaction.atomic(using="default"):
            Region.objects.create(name="lost")
            Order.objects.filter(tenant_id=rows.b).count()
            _kill("default")

    with _reopened("default"), pytest.raises(DatabaseError):
        block()
    assert stored() == before
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


def test_a_control_session_that_a_health_check_finds_lost(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is replaced when the block first needs it, and the shards that take part by then go on doing so."""
    door: Any = connections["default"]
    monkeypatch.setitem(door.settings_dict, "CONN_HEALTH_CHECKS", True)
    monkeypatch.setitem(door.settings_dict, "CONN_MAX_AGE", None)
    door.close()
    door.ensure_connection()
    # What Django does at the beginning of a request.
    door.close_if_unusable_or_obsolete()
    _kill("default")
    with _reopened("default"), transaction.atomic(using="default"):
        Order.objects.create(tenant_id=rows.a, status="made")
        Region.objects.create(name="made")
    assert Order.objects.filter(tenant_id=rows.a, status="made").count() == 1
    assert Region.objects.filter(name="made").count() == 1

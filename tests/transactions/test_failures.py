"""
Work while the control database is down, and what else ends or surrounds a block.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.db.transaction import TransactionManagementError
from django.test import Client

from sharding import cluster_map, map_reading
from sharding.testing.statements import statements
from tests.blocks import Undone, undone
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere, stored

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def without_control(function: Callable[[], Any]) -> Any:
    """Run a function in a thread whose `default` cannot be reached."""

    def run() -> Any:
        door = connections["default"]
        door.settings_dict = {**door.settings_dict, "HOST": "127.0.0.1", "PORT": "1", "NAME": "/nowhere/control"}
        with pytest.raises(OperationalError):
            Region.objects.count()
        return function()

    return elsewhere(run)


def _works(rows: Rows) -> list[str]:
    called: list[str] = []
    Order.objects.filter(tenant_id=rows.a).update(status="one")
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append("committed"))
        order = Order.objects.select_for_update().get(pk=rows.order.pk)
        order.quantity = 5
        order.save()
        with transaction.atomic(using="default"):
            order.lines.create(tenant_id=rows.a, product="tea")
        with undone():
            order.lines.create(tenant_id=rows.a, product="lost")
    with undone():
        Order.objects.filter(pk=order.pk).update(status="lost")
    made = [Order(tenant_id=rows.b), Order(tenant_id=rows.b)]
    if connections["shard_b"].vendor == "postgresql":
        Order.objects.bulk_create(made)
    else:
        # Django 6.1 asks SQLite's connection of `default` how many parameters it takes.
        for each in made:
            each.save()
    return called


def test_work_on_one_shard_needs_no_control_database(rows: Rows) -> None:
    cluster_map.refresh()
    assert without_control(lambda: _works(rows)) == ["committed"]
    order = Order.objects.get(pk=rows.order.pk)
    assert (order.status, order.quantity) == ("one", 5)
    assert [line.product for line in order.lines.all()] == ["tea"]
    assert Order.objects.filter(tenant_id=rows.b).count() == 2


def test_a_map_that_is_too_old_stays_in_use(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = cluster_map.refresh()
    assert cluster_map._loaded is not None
    expired = map_reading.Loaded(known, cluster_map._loaded.numbers, until=0.0)
    monkeypatch.setattr(cluster_map, "_loaded", expired)
    with caplog.at_level(logging.WARNING, "sharding"):
        assert without_control(lambda: Order.objects.filter(tenant_id=rows.a).count()) == 1
    assert [record.getMessage() for record in caplog.records] == [
        f"The bucket map could not be refreshed from the control database (OperationalError); "
        f"epoch {known.epoch} stays in use."
    ]


def test_a_block_over_a_control_database_that_is_down(rows: Rows) -> None:
    before = stored()

    def run() -> None:
        with pytest.raises(OperationalError), transaction.atomic(using="default"):  # noqa: PT012 - a whole block
            Order.objects.create(tenant_id=rows.a, status="lost")
            Region.objects.create(name="lost")

    without_control(run)
    assert stored() == before


def test_closing_inside_a_block(rows: Rows) -> None:
    before = stored()
    with transaction.atomic(using="default"):
        Region.objects.create(name="lost")
        Order.objects.create(tenant_id=rows.a, status="lost")
        connections["default"].close()
        if connections["default"].vendor == "sqlite":
            # A database in memory stays open: only the shards' part is gone.
            transaction.set_rollback(True, using="default")
        with pytest.raises(TransactionManagementError):
            Order.objects.filter(tenant_id=rows.a).count()
    assert stored() == before
    assert not any(connections[alias].in_atomic_block for alias in CLUSTER)
    Order.objects.create(tenant_id=rows.a, status="kept")


def test_atomic_requests(rows: Rows, settings: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.ROOT_URLCONF = "tests.transactions.views"
    settings.MIDDLEWARE = []
    monkeypatch.setitem(connections["default"].settings_dict, "ATOMIC_REQUESTS", True)
    before = stored()
    with pytest.raises(Undone):
        Client().get(f"/fail/{rows.a}")
    assert stored() == before
    with statements(transactions=True) as sent:
        assert Client().get(f"/write/{rows.a}").content == b"0"
    assert set(sent) == {"default", "shard_a"}
    assert Order.objects.filter(tenant_id=rows.a, status="kept").exists()


def test_autocommit_that_is_turned_off(rows: Rows) -> None:
    """Without a block nothing says when the shards are to commit."""
    message = (
        "Autocommit is off on 'default', and a shard cannot take part in a transaction that no atomic() block ends. "
        "Use transaction.atomic()."
    )
    transaction.set_autocommit(False, using="default")
    try:
        with pytest.raises(TransactionManagementError, match=whole(message)):
            Order.objects.create(tenant_id=rows.a)
        Region.objects.create(name="lost")
        transaction.rollback(using="default")
    finally:
        transaction.set_autocommit(True, using="default")
    Order.objects.create(tenant_id=rows.a)
    assert not Region.objects.exists()

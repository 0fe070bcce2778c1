"""
Databases that a block only read: they hold its advisory locks and notifications, so they end after what was written.
"""

from __future__ import annotations

from typing import Any

import psycopg
import pytest
from django.db import IntegrityError, connections, transaction

from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Line, Order, Region
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def _is_locked(alias: str) -> bool:
    def ask() -> bool:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_try_advisory_xact_lock(4711)")
            return not cursor.fetchone()[0]

    found: bool = elsewhere(ask)
    return found


@pytest.mark.parametrize("alias", ["default", "shard_b"])
def test_a_lock_is_held_until_the_write_is_seen(alias: str, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    shard: Any = connections["shard_a"]
    commit, locked = shard._commit, []

    def looking() -> None:
        commit()
        locked.append(_is_locked(alias))

    monkeypatch.setattr(shard, "_commit", looking)
    with transaction.atomic(using="default"):
        Order.objects.filter(tenant_id=rows.b).count()
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(4711)")
        Order.objects.create(tenant_id=rows.a)
    assert locked == [True]
    assert not _is_locked(alias)


def test_a_lock_is_held_until_all_that_was_prepared_is_committed(rows: Rows) -> None:
    locked: list[bool] = []

    def looking(execute: Any, sql: str, *args: Any) -> Any:
        found = execute(sql, *args)
        if sql.startswith("COMMIT PREPARED"):
            locked.append(_is_locked("shard_c"))
        return found

    with connections["shard_a"].execute_wrapper(looking), transaction.atomic(using="default"):
        connections["default"].enlist("shard_c")
        with connections["shard_c"].cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(4711)")
        Order.objects.create(tenant_id=rows.a)
        Order.objects.create(tenant_id=rows.b)
    assert locked == [True]
    assert not _is_locked("shard_c")


def test_a_block_that_fails_notifies_nobody(rows: Rows) -> None:
    gone = Order.objects.create(tenant_id=rows.a)
    Order.objects.filter(tenant_id=rows.a, pk=gone.pk).delete()
    options = {
        name: connections["default"].get_connection_params()[name]
        for name in ("dbname", "user", "password", "host", "port")
    }
    with psycopg.connect(**options, autocommit=True) as listener:
        listener.execute("LISTEN news")
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):  # noqa: PT012 - a whole block
            with connections["default"].cursor() as cursor:
                cursor.execute("SELECT pg_notify('news', 'false')")
            # The constraint is looked at in the commit.
            Line.objects.create(tenant_id=rows.a, order_id=gone.pk)
        assert list(listener.notifies(timeout=0.3)) == []


def test_a_serializable_reader_ends_first_because_it_may_fail(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    noted: list[str] = []
    for alias in ("default", "shard_a"):
        connection: Any = connections[alias]
        commit = connection._commit
        monkeypatch.setattr(connection, "_commit", lambda alias=alias, commit=commit: (noted.append(alias), commit()))
    with transaction.atomic(using="default"):
        with connections["default"].cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        Region.objects.count()
        Order.objects.create(tenant_id=rows.a)
    assert noted[-1:] == ["shard_a"]

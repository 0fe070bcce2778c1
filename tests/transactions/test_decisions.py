"""
What decides a block over several databases, and what must not come in between: the map, stricter isolation, threads,
health checks, pools of connections.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction
from psycopg import IsolationLevel

from sharding import cluster_map
from sharding.commits import decisions, parts, recovery
from sharding.control import Decision
from sharding.testing.statements import statements
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere, prepared

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

TRANSACTION = "0000000000000000.1"


@pytest.fixture(autouse=True)
def _nothing_is_left(transactional_db: None) -> Iterator[None]:
    Decision.objects.using("default").all().delete()
    decisions.carried_out.clear()
    yield
    assert prepared() == []
    Decision.objects.using("default").all().delete()


def _two_shards(rows: Rows, status: str = "two") -> None:
    Order.objects.create(tenant_id=rows.a, status=status)
    Order.objects.create(tenant_id=rows.b, status=status)


def _stored(status: str = "two") -> int:
    return Order.objects.filter(status=status, tenant_id__in=range(100)).count()


def _decided() -> set[str]:
    return set(Decision.objects.using("default").values_list("transaction", flat=True))


def test_a_map_that_grows_old_in_a_block_is_not_read_at_its_end(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control database's transaction may not fail, nor even begin, for anything but the block's own work."""
    assert cluster_map._loaded is not None
    with statements(transactions=True) as sent, transaction.atomic(using="default"):
        _two_shards(rows)
        monkeypatch.setattr(cluster_map, "_loaded", dataclasses.replace(cluster_map._loaded, until=0.0))
    assert [sql.partition(" (")[0] for sql in sent["default"]] == ["INSERT INTO sharding_decision"]
    assert _stored() == 2


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_what_a_resolver_forgets_meanwhile(level: IsolationLevel, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """A block of a stricter isolation does not fail because of decisions that are none of its business."""
    monkeypatch.setattr(decisions, "BATCH", 1)
    door: Any = connections["default"]
    door.ensure_connection()
    door.connection.isolation_level = level
    elsewhere(_leave_behind)
    with transaction.atomic(using="default"):
        Region.objects.create(name="takes its snapshot")
        elsewhere(lambda: recovery.resolve_now(min_age=60, only=CLUSTER))
        _two_shards(rows)
    door.close()
    assert _stored() == 2


def _leave_behind() -> None:
    with connections["default"].cursor() as cursor:
        assert decisions.decide(cursor, TRANSACTION, ["shard_a"])
    decisions.carried_out.append(TRANSACTION)


@pytest.mark.parametrize("with_control", [False, True])
def test_decisions_are_forgotten_by_the_batch(with_control: bool, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "BATCH", 3)
    left = []
    for number in range(7):
        with transaction.atomic(using="default"):
            _two_shards(rows, str(number))
            if with_control:
                Region.objects.create(name="too")
        left.append(len(_decided()))
    assert left == [1, 2, 0, 1, 2, 0, 1]
    assert _decided() == set(decisions.carried_out)


def test_no_two_threads_forget_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decisions, "BATCH", 7)
    decisions.carried_out.extend(map(str, range(700)))
    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(lambda _: decisions.to_forget(), range(300)))
    found = [each for batch in taken for each in batch] + list(decisions.carried_out)
    assert sorted(found, key=int) == list(map(str, range(700)))
    decisions.carried_out.clear()


def test_no_two_threads_forget_the_same_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "BATCH", 7)
    for _ in range(50):
        done = deque(f"{number:02}" for number in range(30))
        with ThreadPoolExecutor(8) as pool:
            batches = list(pool.map(lambda _: parts.taken(done), range(16)))  # noqa: B023
        assert sorted(each for batch in batches for each in batch) == [f"{number:02}" for number in range(30)]


def test_a_tombstone_waits_for_the_disk(rows: Rows) -> None:
    """One that a crash of the server forgot would let its coordinator decide otherwise."""
    found = []

    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("INSERT"):
            raw = context["connection"].connection
            found.append(raw.execute("SHOW synchronous_commit").fetchone()[0])
        return result

    with connections["default"].cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        try:
            with connections["default"].execute_wrapper(look):
                assert decisions.refuse(cursor, TRANSACTION) is False
        finally:
            cursor.execute("RESET synchronous_commit")
    assert found == ["local"]


def test_a_tombstone_whatever_the_isolation_is(rows: Rows) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SET default_transaction_isolation = 'repeatable read'")
        try:
            with connections["default"].execute_wrapper(_note_isolation(levels := [])):
                decisions.refuse(cursor, TRANSACTION)
        finally:
            cursor.execute("RESET default_transaction_isolation")
    assert levels == ["read committed"]


def _note_isolation(found: list[str]) -> Any:
    def look(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        result = execute(sql, params, many, context)
        if sql.startswith("INSERT"):
            found.append(context["connection"].connection.execute("SHOW transaction_isolation").fetchone()[0])
        return result

    return look


def test_a_control_session_that_a_health_check_replaces(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """The callbacks of the block outlive the session that was lost before the decision."""
    door: Any = connections["default"]
    monkeypatch.setitem(door.settings_dict, "CONN_HEALTH_CHECKS", True)
    door.close()
    door.ensure_connection()
    called: list[int] = []
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append(1))
        _two_shards(rows)
        pid = door.connection.info.backend_pid
        elsewhere(lambda: _end_session(pid))
        door.health_check_done = False
    assert (_stored(), called) == (2, [1])
    door.close()


def _end_session(pid: int) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])


def test_a_lost_connection_goes_back_to_its_pool(rows: Rows) -> None:
    connection: Any = connections["default"].copy()
    connection.settings_dict["OPTIONS"] = {"pool": {"min_size": 1, "max_size": 1, "timeout": 5}}
    connection.settings_dict["CONN_MAX_AGE"] = 0
    try:
        for _ in range(2):
            connection.ensure_connection()
            connection.drop_connection()
            connection.pending = False
    finally:
        connection.close_pool()

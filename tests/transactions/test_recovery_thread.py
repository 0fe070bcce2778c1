"""
The thread of a process that finishes what is left: when it looks, and when it has seen enough.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
from django.db import connections

from sharding import cluster_map
from sharding.commits import recovery
from sharding.commits.gids import Gid
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.transactions.conftest import Rows, elsewhere, prepared

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def _quick(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(recovery, "PAUSE", 0.05)
    monkeypatch.setattr(recovery, "aliases", lambda: CLUSTER)
    yield
    recovery.resolve_now(min_age=0)
    assert _ends()
    assert prepared() == []


def _prepare(number: int) -> Gid:
    """Leave a transaction as one that a living coordinator has just prepared."""
    cluster = cluster_map.uuid()
    assert cluster is not None
    gid = Gid(cluster, f"00000000deadbeef.{number}", "shard_a")

    def work() -> None:
        with connections["shard_a"].cursor() as cursor:
            cursor.execute("BEGIN")
            cursor.execute("SELECT pg_current_xact_id()")
            cursor.execute(f"PREPARE TRANSACTION {gid.literal}")

    elsewhere(work)
    return gid


def _roll_back(gid: Gid) -> None:
    with connections["shard_a"].cursor() as cursor:
        cursor.execute(f"ROLLBACK PREPARED {gid.literal}")


def _ends(*, within: float = 60.0) -> bool:
    thread = recovery._thread
    if thread is not None:
        thread.join(within)
    return thread is None or not thread.is_alive()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When the thread has looked."""
    look, looked = recovery._look, []

    def noted() -> object:
        begun = time.monotonic()
        found = look()
        looked.append(begun)
        return found

    monkeypatch.setattr(recovery, "_look", noted)
    return looked


def test_it_waits_for_what_it_found_and_not_for_what_came_later(rows: Rows, looks: list[float]) -> None:
    """Where blocks commit all the time, something is always prepared."""
    first = _prepare(1)
    recovery.finish_later()
    until = time.monotonic() + 60
    while not looks:
        assert time.monotonic() < until
        time.sleep(0.01)
    assert not _ends(within=0.5)
    second = _prepare(2)
    _roll_back(first)
    assert _ends()
    assert prepared() == [("shard_a", str(second))]


def test_it_looks_again_as_soon_as_it_is_asked(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long nothing has helped."""
    monkeypatch.setattr(recovery, "PAUSE", 600.0)
    first = _prepare(1)
    recovery.finish_later()
    assert not _ends(within=0.5)
    _roll_back(first)
    recovery.finish_later()
    assert _ends()


def test_it_looks_twice(rows: Rows, settings: object, looks: list[float]) -> None:
    """A server may go on with a PREPARE after its session was lost."""
    settings.SHARDING = {"SHARDS": ["shard_a", "shard_b", "shard_c"], "RECOVER_AFTER": 0.5}
    asked = time.monotonic()
    recovery.finish_later(twice=True)
    assert _ends()
    # Once, if the first look was as late as the second one should be.
    assert len(looks) == 2 or looks[0] >= asked + 0.5
    assert looks[-1] >= asked + 0.5


def test_every_request_is_looked_after(rows: Rows) -> None:
    """Also one that is made while the thread is ending."""
    for _ in range(30):
        recovery.finish_later()
        threading.Event().wait(0.001)
    assert _ends()
    assert recovery._due == []

"""Sessions say whose block they work for: in threads, forks, pools, and beside a name of the application's own."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator

import pytest
from django.db import connections, transaction

from aggregator import executor
from sharding.backends.session_names import MAX_BYTES, door_of, door_of_gid, session_name
from tests.deadlocks.conftest import scalar
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Order, Region
from tests.transactions.conftest import Rows, elsewhere

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

DOOR = "0123456789abcdef"
SHOWN = "SHOW application_name"


@pytest.mark.parametrize(
    ("own", "expected"),
    [
        ("", f"shardkit:{DOOR}"),
        ("web", f"web shardkit:{DOOR}"),
        (f"web shardkit:{'f' * 16}", f"web shardkit:{DOOR}"),
        ("w" * 63, f"{'w' * 37} shardkit:{DOOR}"),
        ("café\n", f"caf?? shardkit:{DOOR}"),
    ],
)
def test_session_name(own, expected):
    assert session_name(own, DOOR) == expected
    assert len(expected.encode()) <= MAX_BYTES
    assert door_of(expected) == DOOR


@pytest.mark.parametrize("name", [None, "", "web", "shardkit:0123", f"shardkit:{DOOR} web", f"xshardkit:{DOOR}"])
def test_names_of_others(name):
    assert door_of(name) is None


def test_doors_of_gids():
    assert door_of_gid(f"shardkit:{'a' * 32}:{DOOR}.17:shard_a") == DOOR
    assert door_of_gid(f"other:{'a' * 32}:{DOOR}.17:shard_a") is None


@pytest.fixture
def own_name(request) -> Iterator[str]:
    """Give shard_a an application_name of its own, for new sessions of this thread."""
    options = connections["shard_a"].settings_dict["OPTIONS"]
    connections["shard_a"].close()
    options["application_name"] = request.param
    yield request.param
    del options["application_name"]
    connections["shard_a"].close()


def test_every_session_of_a_thread_has_the_name_of_its_door(transactional_db):
    def names() -> tuple[str, set[str]]:
        return connections["default"].coordinator.name, {door_of(scalar(alias, SHOWN)) for alias in CLUSTER}

    here, found = names()
    there, found_there = elsewhere(names)
    assert (found, found_there) == ({here}, {there})
    assert here != there


@pytest.mark.parametrize("own_name", ["web", "w" * 63, "été" * 20], indirect=True)
def test_the_applications_own_name_is_kept(transactional_db, own_name):
    shown = scalar("shard_a", SHOWN)
    assert shown == session_name(own_name, connections["default"].coordinator.name)
    assert door_of(shown) == connections["default"].coordinator.name


def test_the_name_in_the_environment_is_kept(transactional_db, monkeypatch):
    monkeypatch.setenv("PGAPPNAME", "worker")
    connections["shard_a"].close()
    assert re.fullmatch(r"worker shardkit:[0-9a-f]{16}", scalar("shard_a", SHOWN))
    connections["shard_a"].close()


def test_a_session_that_another_thread_opens_on_a_borrowed_wrapper(transactional_db):
    scalar("shard_a", SHOWN), scalar("shard_b", SHOWN)

    def reopen(connection) -> str | None:
        connection.close()
        with connection.cursor() as cursor:
            cursor.execute(SHOWN)
            return door_of(cursor.fetchone()[0])

    both = [connections["shard_a"], connections["shard_b"]]
    assert executor.run(both, reopen) == [connections["default"].coordinator.name] * 2


def test_a_forked_process_has_another_name(transactional_db):
    parent = connections["default"].coordinator.name
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        # Threads that wait for work hold no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        for alias in CLUSTER:
            # The sockets stay the parent's.
            connections[alias].connection = None
        os.write(writer, f"{door_of(scalar('shard_a', SHOWN))} {door_of(scalar('default', SHOWN))}".encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        first, second = pipe.read().split()
    os.waitpid(pid, 0)
    assert first == second != parent


def test_a_pool_is_shared_by_threads_so_its_sessions_are_named_inside_blocks(rows: Rows):
    """Only a block over several databases needs the name: what happens on one server, that server sees."""
    for alias in CLUSTER:
        connections[alias].close()
        connections[alias].settings_dict["OPTIONS"]["pool"] = {"min_size": 1, "max_size": 2}
    try:
        name = connections["default"].coordinator.name
        assert scalar("shard_a", SHOWN) == ""
        with transaction.atomic(using="default"):
            Order.objects.filter(tenant_id=rows.a).count()
            assert door_of(scalar("shard_a", SHOWN)) is None
            Order.objects.filter(tenant_id=rows.b).count()
            assert {door_of(scalar(alias, SHOWN)) for alias in ("shard_a", "shard_b")} == {name}
            Region.objects.count()
            assert door_of(scalar("default", SHOWN)) == name
            Order.objects.filter(tenant_id=tenant_on("shard_c")).count()
            assert door_of(scalar("shard_c", SHOWN)) == name
        assert {scalar(alias, SHOWN) for alias in CLUSTER} == {""}
    finally:
        for alias in CLUSTER:
            connections[alias].close()
            connections[alias].close_pool()
            del connections[alias].settings_dict["OPTIONS"]["pool"]


def test_a_name_that_the_application_sets_later_is_completed(rows: Rows):
    with transaction.atomic(using="default"):
        Order.objects.filter(tenant_id=rows.a).count()
        with connections["shard_a"].cursor() as cursor:
            cursor.execute("SET LOCAL application_name = 'it''s me'")
        Order.objects.filter(tenant_id=rows.b).count()
        assert scalar("shard_a", SHOWN) == f"it's me shardkit:{connections['default'].coordinator.name}"


def test_everybody_sees_the_name(transactional_db):
    pid = scalar("shard_a", "SELECT pg_backend_pid()")
    seen = "SELECT application_name FROM pg_stat_activity WHERE pid = %s"
    assert door_of(elsewhere(lambda: scalar("shard_a", seen, pid))) == connections["default"].coordinator.name

"""`shards deadlocks` on real servers: opposite orders, chains, prepared transactions, and what must be let be."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from django.db import OperationalError, connections

from sharding.conflicts import NOTE
from sharding.direct_connection import direct_connection
from sharding.operations import lock_waits
from sharding.operations.lock_waits import look
from tests.clocks import change_time
from tests.deadlocks.conftest import Block, between_two_commits, blocks, scalar
from tests.deadlocks.waits import hold_and_wait, mark, opposite, statuses, stuck
from tests.layouts import SHOP_ONLY
from tests.shop.models import Order, Region
from tests.transactions.conftest import elsewhere

pytestmark = [
    pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.usefixtures("detector_alone"),
]

ROOT = Path(__file__).resolve().parent.parent.parent


def test_the_younger_of_two_blocks_is_ended_and_the_older_commits(orders):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        found = look(end=True)
        assert [(each.blocks, each.victim) for each in found.deadlocks] == [
            (tuple(sorted([older.name, younger.name])), younger.name)
        ]
        assert (found.ended, found.failures, found.is_sound) == ((younger.name,), {}, True)
        error = younger.end()
        assert older.end() is None
    assert isinstance(error, OperationalError)
    assert (error.__cause__.sqlstate, error.__notes__) == ("57014", [NOTE])
    assert statuses(orders) == ["older", "older", "new"]


def test_age_counts_and_not_the_order_of_waiting(orders):
    """The one that began first waits last."""
    older, younger = opposite(orders)
    with blocks(older, younger):
        older.go()
        younger.go()
        younger.go(wait=False)
        stuck(younger)
        older.go(wait=False)
        stuck(older, younger)
        assert look(end=True).ended == (younger.name,)
        assert isinstance(younger.end(), OperationalError)
        assert older.end() is None


def test_without_end_nothing_is_done(orders):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        found = look()
        assert [each.victim for each in found.deadlocks] == [younger.name]
        assert (found.ended, found.is_sound) == ((), False)
        stuck(older, younger)
        look(end=True)
        assert [type(block.end()) for block in (older, younger)] == [type(None), OperationalError]


def test_a_circle_over_three_shards(orders):
    a, b, c = orders.values()
    each = Block(mark(a, "1"), mark(b, "1")), Block(mark(b, "2"), mark(c, "2")), Block(mark(c, "3"), mark(a, "3"))
    with blocks(*each) as (first, second, third):
        hold_and_wait(first, second, third)
        found = look(end=True)
        assert found.ended == (third.name,)
        assert {wait.waiting.alias for wait in found.deadlocks[0].waits} == set(orders)
        assert isinstance(third.end(), OperationalError)
        second.end()
        first.end()
        assert (first.error, second.error) == (None, None)
    assert statuses(orders) == ["1", "1", "2"]


def test_a_circle_through_the_control_database(orders):
    region = Region.objects.create(name="north")

    def rename() -> None:
        Region.objects.filter(pk=region.pk).update(name="south")

    older, younger = Block(rename, mark(orders["shard_a"], "x")), Block(mark(orders["shard_a"], "y"), rename)
    with blocks(older, younger):
        hold_and_wait(older, younger)
        assert look(end=True).ended == (younger.name,)
        assert isinstance(younger.end(), OperationalError)
        assert older.end() is None


def test_a_chain_is_left_alone(orders):
    a, b, _ = orders.values()
    first, second = Block(mark(a, "1"), lambda: None), Block(mark(b, "2"), mark(a, "2"))
    third = Block(mark(b, "3"))
    with blocks(first, second, third):
        first.go()
        second.go()
        second.go(wait=False)
        third.go(wait=False)
        stuck(second, third)
        found = look(end=True)
        assert found.deadlocks == ()
        assert {(wait.waiting.block, wait.blocking.block) for wait in found.waits} == {
            (second.name, first.name),
            (third.name, second.name),
        }
        assert [block.end() for block in (first, second, third)] == [None] * 3
    assert statuses(orders)[:2] == ["2", "3"]


def test_a_wait_that_ends_between_the_looks_is_none(orders, monkeypatch):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        cancel = "SELECT count(pg_cancel_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE %s"

        def meanwhile(seconds: float) -> None:
            elsewhere(lambda: scalar("shard_b", cancel, f"%{older.name}"))
            assert isinstance(older.end(), OperationalError)

        change_time(monkeypatch, "sharding.operations.lock_waits", sleep=meanwhile)
        found = look(end=True)
        monkeypatch.undo()
        assert (found.deadlocks, found.ended) == ((), ())
        assert younger.end() is None


@pytest.mark.parametrize("change", [{"since": 1}, {"waiting": 1}, {"blocking": 1}])
def test_what_is_not_as_it_was_seen_is_not_ended(orders, change):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        [deadlock] = look().deadlocks
        [wait] = [each for each in deadlock.waits if each.waiting.block == younger.name]
        sessions = {name: replace(getattr(wait, name), pid=1) for name in change if name != "since"}
        connection = connections[wait.waiting.alias]
        assert not lock_waits._cancel(replace(wait, **{**change, **sessions}), connection)
        assert lock_waits._cancel(wait, connection)
        assert isinstance(younger.end(), OperationalError)


# Prepared transactions


def test_a_row_that_a_committing_block_has_prepared(orders):
    """The second part is not committed yet: who waits for it is shown, and what it waits for."""
    a, b, _ = orders.values()
    reader = Block(mark(b, "2"))

    def work() -> None:
        mark(a, "1")()
        mark(b, "1")()

    with between_two_commits(work) as committing, blocks(reader):
        reader.go(wait=False)
        stuck(reader)
        found = look(end=True)
        [wait] = found.waits
        assert re.fullmatch(rf"shardkit:[0-9a-f]{{32}}:{committing.name}\.\d+:shard_b", wait.blocking.block)
        assert (wait.waiting.block, wait.blocking.pid, found.deadlocks) == (reader.name, None, ())
        committing.go_on()
        assert reader.end() is None
    assert statuses(orders)[:2] == ["1", "2"]


@pytest.mark.parametrize("nested", [False, True], ids=["block", "savepoint"])
def test_a_circle_through_what_a_block_has_prepared(orders, nested):
    """A block may wait while it prepares, for a deferred constraint: it has prepared one part, and waits in another."""
    a, b, _ = orders.values()
    gid = ""

    def prepare_one_part() -> None:
        nonlocal gid
        gid = f"shardkit:{'0' * 32}:{connections['default'].coordinator.name}.1:shard_a"
        Order.objects.filter(tenant_id=b.tenant_id).count()
        connection = connections["shard_a"].copy()
        connection.set_autocommit(False)
        with connection.cursor() as cursor:
            if nested:
                cursor.execute("SAVEPOINT one")
            cursor.execute("UPDATE shop_order SET status = '1' WHERE id = %s", [a.pk])
            cursor.execute(f"PREPARE TRANSACTION '{gid}'")
        connection.close()

    committing = Block(prepare_one_part, mark(b, "1"))
    other = Block(mark(b, "2"), mark(a, "2"))
    with blocks(committing, other):
        committing.go()
        other.go()
        committing.go(wait=False)
        other.go(wait=False)
        stuck(committing, other)
        found = look(end=True)
        assert [(set(each.blocks), each.victim) for each in found.deadlocks] == [
            ({committing.name, other.name}, other.name)
        ]
        assert found.ended == (other.name,)
        assert isinstance(other.end(), OperationalError)
        committing.end()
        connections["shard_a"].cursor().execute(f"ROLLBACK PREPARED '{gid}'")
    assert committing.error is None


def test_a_server_that_is_lost_before_its_statement_is_canceled(orders):
    with blocks(*opposite(orders)) as (older, younger):
        hold_and_wait(older, younger)
        with direct_connection("shard_a") as connection:
            first = lock_waits._graph({"shard_a": connection}, {})
            [wait] = first.waits
            pid = connection.connection.info.backend_pid
            elsewhere(lambda: scalar("shard_a", "SELECT pg_terminate_backend(%s, 60000)", pid))
            failures: dict[str, str] = {}
            assert not lock_waits._end(younger.name, first, {"shard_a": connection}, failures)
        assert wait.waiting.block == younger.name
        assert list(failures) == ["shard_a"]
        assert look(end=True).ended == (younger.name,)
        younger.end()

"""
A move from the first step to the last, and what the operator may want of it meanwhile.
"""

from __future__ import annotations

import threading
import time

import pytest
from django.db import connections, transaction

from sharding import bucket_of, cluster_map
from sharding.fence import barrier
from sharding.rebalance import registering
from sharding.rebalance.decided_steps import EndWindow, Own
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.sessions import NO_BUCKET, application_name
from sharding.rebalance.undecided_steps import Begin, Verify
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.moving.scenes import MAP_TTL, Scene, control_session, fenced_cluster, plan_of
from tests.moving.ways import PATIENCE, stop_at
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def run(scene, until=(Phase.DONE, Phase.ABORTED), heard=None):
    """Run movers until the move is in one of some phases."""
    phases = []

    def hear(move, step):
        phases.append((move.phase, type(step).__name__))
        if heard:
            heard(move, step)

    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        scene.mover(heard=hear).run()
        if scene.move.phase in until:
            return phases
        assert not scene.move.error, scene.move.error
        time.sleep(MAP_TTL / 4)
    raise AssertionError(f"The move stays in {scene.move.phase}: {phases}")


def test_a_bucket_goes_to_another_shard(scene):
    before = scene.rows("shard_a")
    assert sorted(before) == ["Customer", "Line", "Order", "OrderTag", "Tag"]
    steps = run(scene)
    assert [step for _, step in steps if step != "Claim"] == [
        "Begin",
        "Prepare",
        "Capture",
        "Copy",
        "CatchUp",
        "Verify",
        "Fence",
        "Decide",
        "Own",
        "Forward",
        "Announce",
        "EndWindow",
        "Settle",
        "Purge",
        "Close",
    ]
    assert scene.rows("shard_b") == before
    assert scene.rows("shard_a") == {}
    assert scene.states() == (None, "owned")
    assert cluster_map.refresh().owner(scene.bucket) == "shard_b"
    assert scene.leftovers() == {}
    move = scene.move
    assert (move.phase, move.copied, move.error) == ("done", 11, "")
    assert move.report["sound"]
    assert move.report["rows"] == 11
    assert 0 < move.gap < 60


@pytest.mark.parametrize(("source", "target"), [("default", "shard_c"), ("shard_c", "default")])
def test_default_is_a_shard_like_any_other(transactional_db, source, target):
    with fenced_cluster():
        scene = Scene(source, target)
        before = scene.rows(source)
        scene.plan()
        run(scene)
        assert scene.rows(target) == before
        assert scene.rows(source) == {}
        assert scene.states() == (None, "owned")


def test_what_is_written_after_the_switch_is_there_after_a_rollback(scene):
    scene.options = Options(window=600.0, share=1.0, latency=None)
    run(scene, until=[Phase.WINDOW])
    assert scene.states() == ("moved", "capturing")
    cluster_map.refresh()
    scene.order(17)
    Order.objects.filter(tenant_id=scene.tenant, total=0).delete()
    wanted = scene.rows("shard_b")
    assert scene.wish(Wanted.ROLLBACK) == [scene.bucket]
    scene.options = Options(window=0.0, share=1.0, latency=None)
    steps = run(scene, until=[Phase.DONE])
    steps += run(scene, until=[Phase.DONE])
    assert "Reopen" in [step for _, step in steps]
    assert "Copy" not in [step for _, step in steps]
    assert scene.rows("shard_a") == wanted
    assert scene.rows("shard_b") == {}
    assert scene.states() == ("owned", None)
    assert cluster_map.refresh().owner(scene.bucket) == "shard_a"
    assert scene.leftovers() == {}


@pytest.mark.parametrize(
    "phase", [Phase.PREPARING, Phase.CAPTURING, Phase.COPYING, Phase.CATCHING_UP, Phase.VERIFYING, Phase.FENCING]
)
def test_an_abort_leaves_all_as_it_was(scene, phase):
    before = scene.rows("shard_a")
    stop_at(scene, phase)
    assert scene.wish(Wanted.ABORT) == [scene.bucket]
    run(scene)
    assert scene.move.phase == "aborted"
    assert scene.rows("shard_a") == before
    assert scene.rows("shard_b") == {}
    assert scene.states() == ("owned", None)
    assert scene.leftovers() == {}


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.FINISHING])
def test_a_move_that_pauses_can_be_written(scene, phase):
    stop_at(scene, phase)
    scene.wish(Wanted.PAUSE)
    scene.mover().run()
    assert scene.states() == ("capturing", "importing")
    scene.order(4)
    scene.mover().run()
    assert scene.move.phase == ("copying" if phase == "copying" else "catching_up")
    scene.wish(Wanted.GO)
    before = scene.rows("shard_a")
    run(scene)
    assert scene.rows("shard_b") == before


@pytest.fixture
def patient(monkeypatch):
    """Let a barrier be tried as often as it takes until a transaction has ended."""
    monkeypatch.setitem(barrier.behind.__kwdefaults__, "waits", (50, 50, 100, 100, 200, 200) + (400,) * 100)


@pytest.mark.usefixtures("patient")
def test_the_time_in_which_nobody_could_write_does_not_count_that_in_which_the_mover_gave_way(scene):
    """The barrier waits for a transaction that is open, and lets others write meanwhile."""
    opened, ended, owned = [], [], []

    def heard(move, step):
        if isinstance(step, Verify):
            opened.append(threading.Thread(target=_write_for, args=(scene, 0.9, writing, ended)))
            opened[0].start()
            assert writing.wait(60)
        if isinstance(step, Own):
            owned.append(time.monotonic())

    writing = threading.Event()
    run(scene, heard=heard)
    opened[0].join()
    assert 0 < scene.move.gap < owned[0] - ended[0]


@pytest.mark.usefixtures("patient")
def test_notes_of_a_transaction_that_ends_late_are_not_left(scene):
    """It began to write while notes were taken for a rollback, and commits when the bucket is settled."""
    writing, opened = threading.Event(), []

    def heard(move, step):
        if isinstance(step, EndWindow):
            cluster_map.refresh()
            opened.append(threading.Thread(target=_write_for, args=(scene, 0.4, writing, [])))
            opened[0].start()
            assert writing.wait(60)

    run(scene, heard=heard)
    opened[0].join()
    assert scene.move.phase == "done"
    assert scene.leftovers() == {}


def _write_for(scene, seconds, writing, ended):
    try:
        with transaction.atomic(using="default"):
            scene.order(17)
            writing.set()
            time.sleep(seconds)
            ended.append(time.monotonic())
    finally:
        connections.close_all()


def test_no_session_is_known_by_a_move_that_others_may_have(scene):
    """Whoever takes a move in hand ends the sessions of earlier attempts."""
    seen = []

    def heard(move, step):
        if isinstance(step, Begin):
            seen.append((application_name(move.bucket, move.generation), sorted(_mover_names(3 + len(seen)))))

    other = tenant_on("shard_c")
    with control_session() as control:
        registering.register(control, plan_of(cluster_map.refresh(), (bucket_of(other, model=Order), "shard_a")))
    time.sleep(MAP_TTL)
    scene.planned = None
    scene.mover(heard=heard).run()
    (_, first), (name, second) = seen
    assert len(first) == 3
    assert second == [application_name(NO_BUCKET, 0), name, name, name]


def _mover_names(number):
    """Return the names of all sessions of movers, once there are no more: a server takes a while to end one."""
    until = time.monotonic() + 60
    while len(found := _all_mover_names()) > number:
        assert time.monotonic() < until, found
        time.sleep(0.01)
    return found


def _all_mover_names():
    found = []
    for alias in CLUSTER:
        with connections[alias].cursor() as cursor:
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity WHERE datname = current_database() "
                "AND application_name LIKE 'shardkit-mover:%%'"
            )
            found += [name for (name,) in cursor.fetchall()]
    return found

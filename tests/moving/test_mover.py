"""
A move from the first step to the last, and what the operator may want of it meanwhile.
"""

from __future__ import annotations

import time

import pytest

from sharding import cluster_map
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase, Wanted
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.scenes import MAP_TTL, Scene, fenced_cluster
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def run(scene, until=(Phase.DONE, Phase.ABORTED), **changes):
    """Run movers until the move is in one of some phases."""
    phases = []
    for _ in range(200):
        scene.mover(heard=lambda move, step: phases.append((move.phase, type(step).__name__)), **changes).run()
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
    assert 0 < move.gap < 1


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
    _stop_at(scene, phase)
    assert scene.wish(Wanted.ABORT) == [scene.bucket]
    run(scene)
    assert scene.move.phase == "aborted"
    assert scene.rows("shard_a") == before
    assert scene.rows("shard_b") == {}
    assert scene.states() == ("owned", None)
    assert scene.leftovers() == {}


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.FINISHING])
def test_a_move_that_pauses_can_be_written(scene, phase):
    _stop_at(scene, phase)
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


def _stop_at(scene, phase):
    """Let a mover be lost as soon as the move is in a phase."""

    class Lost(BaseException):
        pass

    def heard(move, step):
        if step.leads_to == phase:
            raise Lost

    time.sleep(MAP_TTL)
    with pytest.raises(Lost):
        scene.mover(heard=heard).run()
    assert scene.move.phase == phase

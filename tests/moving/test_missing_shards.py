"""
Moves of which this process does not know a shard, and others that have nothing to do with it.
"""

from __future__ import annotations

import time

import pytest

from sharding.models import Move
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.scenes import MAP_TTL, Scene, fenced_cluster
from tests.moving.ways import finish, impatient, stop_at

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def let_target_be(scene: Scene, alias: str) -> None:
    Move.objects.using("default").filter(bucket=scene.bucket).update(target=alias)


def test_the_others_go_on(transactional_db):
    with fenced_cluster():
        lost, other = (Scene("shard_a", "shard_b", place=place) for place in range(2))
        lost.plan(other)
        let_target_be(lost, "shard_gone")
        time.sleep(MAP_TTL)
        finish(other)
        assert other.move.phase == "done"
        assert (lost.move.phase, lost.states()) == ("planned", ("owned", None))
        assert lost.move.error.startswith("The bucket map names the shard 'shard_gone', which is not in DATABASES.")


def test_a_bucket_that_is_closed_is_opened_again(scene, monkeypatch):
    impatient(monkeypatch)
    stop_at(scene, Phase.FINISHING)
    assert scene.states() == ("fenced", "importing")
    let_target_be(scene, "shard_gone")
    scene.mover().run()
    assert scene.states() == ("capturing", "importing")
    let_target_be(scene, "shard_b")
    finish(scene)
    assert (scene.move.phase, scene.states()) == ("done", (None, "owned"))

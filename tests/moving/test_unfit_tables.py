"""
Moves whose mover runs other code than the databases were migrated for, or meets tables whose rows it cannot move.
"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from sharding import registry
from sharding.errors import TablesDiffer
from sharding.models import Move
from sharding.rebalance import cleaning, mover, rechecking
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.scenes import MAP_TTL, control_session
from tests.moving.ways import finish, impatient, stop_at

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


@pytest.fixture
def new_model(monkeypatch):
    """A model of the code that movers run, for which nothing has been migrated."""
    known = {**registry.tables(), "shop_new": "shop.New"}

    def come() -> None:
        monkeypatch.setattr(registry, "tables", lambda: known)

    return come


def test_a_move_that_has_not_begun_is_given_up(scene, new_model):
    before = scene.rows("shard_a")
    new_model()
    finish(scene)
    assert scene.move.phase == "aborted"
    assert "shop_new does not exist on 'shard_a'. shop_new does not exist on 'shard_b'." in scene.move.error
    assert (scene.states(), scene.rows("shard_a")) == (("owned", None), before)


@pytest.mark.parametrize("phase", [Phase.COPYING, Phase.FINISHING, Phase.DECIDED, Phase.WINDOW])
def test_a_move_that_has_begun_goes_on(scene, new_model, phase):
    """Nobody could migrate before it ends."""
    before = scene.rows("shard_a")
    stop_at(scene, phase)
    new_model()
    finish(scene)
    assert (scene.move.phase, scene.states()) == ("done", (None, "owned"))
    assert (scene.rows("shard_a"), scene.rows("shard_b")) == ({}, before)
    assert scene.leftovers() == {}


def test_rows_can_be_compared_and_cleaned_up_beside_it(scene, new_model):
    stop_at(scene, Phase.WINDOW)
    new_model()
    with control_session() as control:
        [found] = rechecking.recheck(control, scene.planned)
        assert (found.bucket, found.when, found.sound) == (scene.bucket, "now", True)
        Move.objects.using("default").all().delete()
        [rows] = [each for each in cleaning.leftovers(control, ("shard_a",)) if each.kind == "rows"]
        assert cleaning.clean(control, [rows]) == [rows]
    assert scene.rows("shard_a") == {}


@pytest.mark.parametrize("phase", [Phase.PLANNED, Phase.WINDOW])
def test_a_move_that_can_neither_go_on_nor_be_aborted_is_tried_again_later(scene, monkeypatch, phase):
    options = scene.options
    if phase is Phase.WINDOW:
        scene.options = replace(options, window=600.0)
        finish(scene, (phase,))
        Move.objects.using("default").update(window_ends=scene.move.announced)
    time.sleep(MAP_TTL)
    # It must not be at it without an end.
    scene.options = replace(options, stop=lambda: scene.move.failures > 5)

    def unfit(session):
        raise TablesDiffer("shop_odd.id can be no part of a primary key.", differences=())

    with monkeypatch.context() as patch:
        patch.setattr(mover, "sharded_tables", unfit)
        scene.mover().run()
    assert (scene.move.phase, scene.move.failures) == (phase, 2 if phase is Phase.PLANNED else 1)
    assert scene.move.error == "shop_odd.id can be no part of a primary key."
    assert scene.move.retry_at > scene.move.changed
    impatient(monkeypatch)
    scene.options = options
    Move.objects.using("default").update(retry_at=None)
    finish(scene)
    assert scene.move.phase == ("aborted" if phase is Phase.PLANNED else "done")

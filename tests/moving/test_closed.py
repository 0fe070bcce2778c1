"""
A bucket that nobody can write: whatever fails, it is opened again as soon as somebody can do it, and by nobody else.
"""

from __future__ import annotations

import time
from dataclasses import replace

import psycopg
import pytest
from django.utils import timezone

from sharding.bucket_states import BucketState
from sharding.models import Move
from sharding.rebalance import failing, stored_moves
from sharding.rebalance.phases import Phase
from sharding.rebalance.sessions import open_session
from tests.downtime import down
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import session
from tests.moving.scenes import MAP_TTL, Scene, control_session
from tests.moving.ways import as_mover, finish, once, set_state, stop_at, within

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]


def assert_moved(scene: Scene, before: object) -> None:
    assert scene.move.phase == "done"
    assert scene.rows("shard_b") == before
    assert scene.rows("shard_a") == {}
    assert scene.states() == (None, "owned")
    assert scene.leftovers() == {}


def open_again(scene, change=lambda move: move, **facts):
    """Do what a mover does after a failure, of which ``change`` says what it knows of the move."""
    with control_session() as control, open_session("shard_a") as source:
        known = change(stored_moves.read_one(control, scene.move.id).move)
        failing.open_again(control, source, known, **{"deciding": False, **facts})


@pytest.mark.parametrize("phase", [Phase.FENCING, Phase.FINISHING])
def test_the_source_is_opened_while_the_target_does_not_answer(scene, phase):
    stop_at(scene, Phase.FINISHING)
    Move.objects.using("default").update(phase=phase)
    with down("shard_b"):
        scene.mover().run()
        assert scene.states_of("shard_a") == "capturing"
        move = scene.move
        assert (move.phase, move.failures) == ("catching_up", 1)
        assert "connection failed" in move.error
        scene.order(7)
    before = scene.rows("shard_a")
    finish(scene)
    assert_moved(scene, before)


def test_the_source_is_opened_while_the_control_database_does_not_answer(scene):
    def cut():
        with session("default") as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name LIKE %s",
                [f"shardkit-mover:{scene.bucket:x}:%"],
            )

    time.sleep(MAP_TTL)
    with once(within("Decide"), cut), pytest.raises(psycopg.OperationalError):
        scene.mover().run()
    assert scene.move.phase == "finishing"
    assert scene.states() == ("capturing", "importing")
    scene.order(7)
    before = scene.rows("shard_a")
    finish(scene)
    assert_moved(scene, before)


def test_it_stays_closed_if_the_decision_may_have_been_made(scene):
    stop_at(scene, Phase.FINISHING)
    with control_session() as control:
        move = stored_moves.read_one(control, scene.move.id).move
    with open_session("shard_a") as source:
        failing.open_again(control, source, move, deciding=True)
        assert scene.states() == ("fenced", "importing")
        failing.open_again(control, source, move, deciding=False)
        assert scene.states() == ("capturing", "importing")


def test_an_attempt_that_was_overtaken_opens_nothing(scene):
    stop_at(scene, Phase.FINISHING)
    open_again(scene, lambda move: replace(move, generation=move.generation - 1))
    assert scene.states() == ("fenced", "importing")
    assert scene.move.phase == "finishing"
    open_again(scene)
    assert scene.states() == ("capturing", "importing")
    assert scene.move.phase == "catching_up"


def test_nor_does_it_if_it_cannot_ask_the_control_database(scene):
    stop_at(scene, Phase.FINISHING)
    with control_session() as control:
        move = stored_moves.read_one(control, scene.move.id).move
    with open_session("shard_a") as source:
        failing.open_again(control, source, replace(move, generation=move.generation - 1), deciding=False)
    assert scene.states() == ("fenced", "importing")


def test_a_bucket_that_was_decided_upon_is_not_opened(scene):
    stop_at(scene, Phase.DECIDED)
    open_again(scene)
    assert scene.states() == ("fenced", "importing")
    assert scene.move.phase == "decided"


def test_a_contradiction_is_left_as_it_is(scene):
    stop_at(scene, Phase.FINISHING)
    set_state("shard_b", scene.bucket, BucketState.OWNED)
    scene.mover().run()
    assert scene.states() == ("fenced", "owned")
    assert (scene.move.phase, scene.move.wanted) == ("finishing", "go")
    assert scene.move.error == (
        f"The move of bucket {scene.bucket} from 'shard_a' to 'shard_b' cannot go on: in this phase it is importing on "
        f"the target. Its phase is 'finishing', the bucket map names 'shard_a', and the bucket is fenced on 'shard_a' "
        f"and owned on 'shard_b'. Somebody has changed a fence or restored a database: compare the rows of both "
        f"shards, and make the fences agree with the map, before the move goes on."
    )


def test_a_mover_that_is_to_end_gives_up_no_closed_bucket(scene):
    ends = []

    def damage():
        ends.append(True)
        assert as_mover("shard_b", scene.bucket, "DELETE FROM shop_line WHERE bucket = %s") == 3

    scene.options = replace(scene.options, stop=lambda: bool(ends))
    before = scene.rows("shard_a")
    with once(within("Decide", "shard_b"), damage) as met:
        while not met:
            scene.mover().run()
    assert scene.states() == ("capturing", "importing")
    move = scene.move
    assert (move.phase, move.wanted) == ("catching_up", "abort")
    assert move.error.startswith(f"Bucket {scene.bucket} is not the same on 'shard_a' and 'shard_b': ")
    ends.clear()
    finish(scene)
    assert scene.move.phase == "aborted"
    assert scene.rows("shard_a") == before
    assert scene.leftovers() == {}


@pytest.mark.parametrize(("phase", "most"), [(Phase.COPYING, 60), (Phase.FINISHING, 1), (Phase.DECIDED, 1)])
def test_a_closed_bucket_is_not_left_alone_for_long(scene, phase, most):
    stop_at(scene, phase)
    Move.objects.using("default").update(failures=9)
    with control_session() as control:
        begun = timezone.now()
        failing.retry_later(control, stored_moves.read_one(control, scene.move.id).move, OSError("no answer"))
        ended = timezone.now()
    first, last = ((scene.move.retry_at - each).total_seconds() for each in (begun, ended))
    assert first > most - 1.9
    assert last <= most

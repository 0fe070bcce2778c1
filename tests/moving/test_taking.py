"""
Who takes which move in hand: one that hangs is replaced wherever it hangs, and one that works is left alone.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import closing
from dataclasses import replace

import psycopg
import pytest
from django.db import connections

from sharding import bucket_of, cluster_map
from sharding.errors import RebalanceError
from sharding.models import Attempt, Move
from sharding.rebalance import claiming, registering, stored_moves
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.sessions import open_session
from tests import servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.moving import victims
from tests.moving.applications import session
from tests.moving.scenes import MAP_TTL, control_session, plan_of
from tests.moving.statements import watched
from tests.moving.ways import finish, once, stop_at, within
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]


@pytest.fixture
def hanging(scene):
    """A session at the control database that has the move in hand, and does nothing."""
    stop_at(scene, Phase.COPYING)
    with closing(session("default")) as connection:
        connection.execute("SELECT pg_advisory_lock(%s, %s)", [claiming.MOVE_LOCK, scene.move.id])
        yield connection


def test_a_mover_that_gives_signs_of_life_is_left_alone(scene, hanging):
    assert scene.mover().run() == 0
    assert scene.move.phase == "copying"


@pytest.mark.parametrize("per_shard", [1, 2])
def test_one_that_gives_none_is_replaced_though_its_shards_have_enough(scene, hanging, per_shard):
    scene.options = replace(scene.options, silence=0.0, per_shard=per_shard)
    finish(scene)
    assert scene.move.phase == "done"
    with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
        hanging.execute("SELECT 1")


def test_one_that_hangs_in_the_middle_of_a_change_is_replaced(scene, hanging):
    hanging.execute("BEGIN")
    hanging.execute("UPDATE sharding_move SET phase = 'done'")
    scene.options = replace(scene.options, silence=0.0)
    finish(scene)
    assert scene.move.phase == "done"
    assert scene.states() == (None, "owned")


def test_one_that_hangs_and_belongs_to_another_role_is_told_of(scene, caplog):
    stop_at(scene, Phase.COPYING)
    scene.options = replace(scene.options, silence=0.0)
    name = connections["default"].settings_dict["NAME"]
    with closing(psycopg.connect(servers.superuser_url(name), autocommit=True)) as other:
        other.execute("SELECT pg_advisory_lock(%s, %s)", [claiming.MOVE_LOCK, scene.move.id])
        assert scene.mover().run() == 0
        [told] = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        assert told == (
            f"Whoever moves bucket {scene.bucket} gives no sign of life, and cannot be replaced: its session at the "
            f"control database (process {other.info.backend_pid} of the server) belongs to another role, postgres. "
            f"End it as that role, or as a superuser: SELECT pg_terminate_backend({other.info.backend_pid})"
        )
        assert scene.move.phase == "copying"
    finish(scene)
    assert scene.move.phase == "done"


def test_one_that_hangs_while_it_takes_a_move_holds_up_nobody_for_long(scene, monkeypatch):
    monkeypatch.setattr(claiming, "ENDING", 1.0)

    def hang(say):
        def before(statement):
            if "sharding_move AS m" in statement.text:
                os.kill(os.getpid(), signal.SIGSTOP)

        with watched(before):
            scene.mover().run()

    time.sleep(MAP_TTL)
    victim = victims.start(hang)
    try:
        assert victim.is_standing()
        begun = time.monotonic()
        finish(scene)
        assert time.monotonic() - begun < 30
    finally:
        victim.kill()


def test_sessions_of_movers_that_are_at_something_else_are_left_alone(scene):
    """Bucket 0 is one like any other."""
    with control_session() as idle, control_session() as other, open_session("default") as third:
        with control_session() as control:
            move = replace(stored_moves.read_one(control, scene.move.id).move, bucket=0, generation=5)
            claiming.adopt(control, third, [replace(move, generation=4)])
            claiming.adopt(control, other, [replace(move, bucket=1, generation=3)])
            claiming.adopt(control, control, [move])
        for session_ in (idle, other):
            assert session_.connection.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(psycopg.OperationalError, match="terminating connection due to administrator command"):
            third.connection.execute("SELECT 1")


def test_a_mover_goes_on_though_another_one_continues_what_it_began(scene):
    pairs = [("shard_a", "shard_b"), ("shard_c", "default"), ("shard_a", "shard_b")]
    buckets = [bucket_of(tenant_on(source, place), model=Order) for place, (source, _) in enumerate(pairs)]
    registering_ = [(bucket, target) for bucket, (_, target) in zip(buckets[1:], pairs[1:], strict=True)]
    with control_session() as control:
        registering.register(control, plan_of(cluster_map.refresh(), *registering_))
    scene.planned = None
    scene.options = replace(scene.options, together=1)
    time.sleep(MAP_TTL)
    taken = []

    def heard(move, step):
        taken.append(move.bucket)
        if step.leads_to == Phase.PREPARING and move.bucket == buckets[1]:
            # The window of the first one is over.
            time.sleep(MAP_TTL)
            other = []
            scene.mover(heard=lambda move, step: other.append((move.bucket, move.phase))).run()
            assert (buckets[0], "purging") in other

    scene.mover(heard=heard).run()
    assert [*dict.fromkeys(taken)][:2] == buckets[:2]
    finish(scene, waiting=lambda: None)
    while Move.objects.using("default").exclude(phase="done").exists():
        scene.mover().run()
    assert {(move.error, move.failures) for move in Move.objects.using("default")} == {("", 0)}


def test_a_move_waits_for_old_statements_and_is_not_taken_again_and_again(scene):
    asked = []

    def has_asked_often() -> bool:
        asked.append(True)
        return len(asked) > 3000

    scene.options = replace(scene.options, stop=has_asked_often)
    with closing(session("shard_a")) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT 1")
        finish(scene, (Phase.WINDOW,))
        time.sleep(2 * MAP_TTL)
        known = Attempt.objects.using("default").count()
        assert scene.mover().run() + scene.mover().run() <= 1
        assert Attempt.objects.using("default").count() <= known + 1
        assert (scene.move.phase, scene.move.error) == ("window", "")
        reader.execute("ROLLBACK")
    finish(scene)
    assert scene.move.phase == "done"


@pytest.mark.parametrize(("step", "wanted", "end"), [("Decide", "abort", "aborted"), ("EndWindow", "rollback", "done")])
def test_what_is_wanted_at_the_last_moment_is_done(scene, step, wanted, end):
    before = scene.rows("shard_a")

    def wish():
        # What registering.wish() does.
        assert Move.objects.using("default").update(wanted=Wanted(wanted)) == 1

    with once(within(step), wish) as met:
        finish(scene)
    assert met
    finish(scene)
    assert scene.move.phase == end
    assert scene.rows("shard_a") == before
    assert scene.rows("shard_b") == {}
    assert scene.states() == ("owned", None)
    assert scene.leftovers() == {}


def test_notes_that_are_made_while_none_are_wanted_any_more_do_not_stay(scene):
    def write():
        with session("shard_b") as connection:
            connection.execute("UPDATE shop_order SET total = 99 WHERE bucket = %s", [scene.bucket])

    with once(lambda each: each.within == "Settle" and each.text.startswith("UPDATE sharding_fence"), write) as met:
        finish(scene)
    assert met
    assert {row.total for row in Order.objects.filter(tenant_id=scene.tenant)} == {99}
    assert scene.leftovers() == {}


def test_two_plans_with_one_bucket(scene):
    with control_session() as control, pytest.raises(RebalanceError) as refused:
        registering.register(control, plan_of(cluster_map.refresh(), (scene.bucket, "shard_c")))
    assert str(refused.value) == (
        f"A bucket of this plan is moving already (Key (bucket)=({scene.bucket}) already exists.). "
        f"Let the moves that have begun end, or abort them, and make a new plan."
    )
    assert Move.objects.using("default").count() == 1

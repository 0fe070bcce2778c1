"""Sessions that are no attempt's, or not any more, are left alone by those who end the sessions of older attempts."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace

import pytest

from sharding.management.rebalance_control import control
from sharding.rebalance import claiming, stored_moves
from sharding.rebalance.mover import Mover
from sharding.rebalance.options import Options
from sharding.rebalance.sessions import open_session
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.scenes import Scene, control_session

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def test_a_move_of_bucket_0_leaves_sessions_of_commands_alone(scene: Scene):
    with control() as command, control_session() as mover:
        move = replace(stored_moves.read_one(mover, scene.move.id).move, bucket=0, generation=7)
        claiming.adopt(mover, mover, [move])
        assert command.connection.execute("SELECT 1").fetchall() == [(1,)]


def test_a_mover_that_has_let_a_move_go_is_not_ended_by_the_next_one(scene: Scene):
    idle = Mover(Options(window=600.0, share=1.0, latency=None), plan=scene.planned)
    with ExitStack() as stack, control_session() as other:
        idle._open_control()
        stack.callback(idle._close)
        while not scene.move.announced:
            idle._some()
        move = stored_moves.read_one(other, scene.move.id).move
        for session in (other, *_sessions(stack, move)):
            claiming.adopt(session, session, [replace(move, generation=move.generation + 1)])
        for session in (idle._need_control(), *idle._sessions.values()):
            assert session.connection.execute("SELECT 1").fetchall() == [(1,)]


def _sessions(stack, move):
    return [
        stack.enter_context(open_session(alias, buckets=move.bucket, generation=move.generation + 1))
        for alias in (move.source, move.target)
    ]

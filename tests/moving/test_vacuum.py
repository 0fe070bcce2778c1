"""
Giving back the space of what was moved is no part of a move: nothing that happens then concerns anybody.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from sharding.models import Move
from sharding.rebalance.phases import Phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import session
from tests.moving.statements import watched
from tests.moving.ways import finish, once

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def vacuums(statement):
    return statement.text.startswith("VACUUM")


def test_a_session_that_is_lost_ends_no_mover(scene):
    def lose():
        with closing(session("shard_a")) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                "WHERE application_name LIKE 'shardkit-mover:%' AND datname = current_database()"
            )

    scene.options = replace(scene.options, window=600.0)
    finish(scene, (Phase.WINDOW,))
    Move.objects.using("default").update(window_ends=scene.move.announced)
    ended = []
    with once(vacuums, lose) as met:
        while not met:
            ended.append(scene.mover().run())
    assert sum(ended) == 1
    assert scene.move.phase == "done"


def test_a_mover_that_is_to_stop_leaves_it_to_autovacuum(scene):
    stopped, made = [], []

    def note(statement):
        if vacuums(statement):
            made.append(statement.text)
            stopped.append(True)

    scene.options = replace(scene.options, stop=lambda: bool(stopped))
    with watched(note):
        finish(scene)
    assert len(made) == 1

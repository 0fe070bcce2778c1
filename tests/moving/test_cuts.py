"""
A mover that loses a session at any step, and servers that are gone for a while: it goes on by itself.
"""

from __future__ import annotations

import time

import psycopg
import pytest

from sharding.rebalance.phases import Phase
from tests.downtime import down
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.moving.applications import rows, session
from tests.moving.ways import OVER, finish, impatient, in_each_step, stop_at
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]


def cut(alias, bucket):
    """End the session of a mover at a database."""
    with session(alias) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND application_name LIKE %s",
            [f"shardkit-mover:{bucket:x}:%"],
        )


@pytest.mark.slow
@pytest.mark.parametrize("place", [1, 3, 5])
@pytest.mark.parametrize("alias", ["shard_a", "shard_b", "default"])
def test_a_session_that_is_lost_in_each_step(scene, monkeypatch, alias, place):
    impatient(monkeypatch)
    lost = in_each_step(scene, alias, place, lambda: cut(alias, scene.bucket))
    # Not every step sends so many statements to each database.
    assert len(lost) >= 4, lost


@pytest.mark.parametrize(
    "phase", [Phase.PREPARING, Phase.COPYING, Phase.VERIFYING, Phase.FINISHING, Phase.OWNING, Phase.PURGING]
)
def test_the_control_database_is_away_for_a_while(scene, phase):
    """The rest of the application does not need it: it has a map."""
    other = tenant_on("shard_c")
    stop_at(scene, phase)
    with down("default"):
        with pytest.raises(psycopg.OperationalError):
            scene.mover().run()
        Order.objects.create(tenant_id=other, total=1)
    finish(scene)
    assert scene.move.phase == "done"
    assert Order.objects.filter(tenant_id=other).count() == 1


@pytest.mark.parametrize(
    ("alias", "phase", "states"),
    [
        ("shard_b", Phase.COPYING, ("capturing", None)),
        ("shard_b", Phase.FINISHING, ("capturing", None)),
        ("shard_b", Phase.DECIDED, ("fenced", None)),
        ("shard_a", Phase.COPYING, (None, "importing")),
        ("shard_a", Phase.OWNING, (None, "capturing")),
        ("shard_a", Phase.PURGING, (None, "capturing")),
    ],
)
def test_a_shard_is_away_for_a_while(scene, alias, phase, states):
    before = rows("shard_a", scene.bucket)
    stop_at(scene, phase)
    begun = time.monotonic()
    with down(alias):
        scene.mover().run()
        there = [scene.states_of(each) for each in ("shard_a", "shard_b") if each != alias]
        assert there == [state for state in states if state is not None]
        assert "connection failed" in scene.move.error
    assert time.monotonic() - begun < 60
    finish(scene)
    assert scene.move.phase in OVER
    assert rows("shard_b", scene.bucket) == before
    assert scene.leftovers() == {}

"""
A server that crashes in each step of a move, and starts again: the mover goes on by itself.
"""

from __future__ import annotations

import pytest
from django.db import connections

from tests import servers
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import Application, fill, rows
from tests.moving.statements import watched
from tests.moving.ways import finish, impatient

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]


@pytest.mark.parametrize("place", [1, 4])
@pytest.mark.parametrize("alias", ["shard_a", "shard_b", "default"])
def test_a_server_that_crashes_in_each_step(scene, monkeypatch, alias, place):
    impatient(monkeypatch)
    fill(scene)
    application = Application(scene, rows("shard_a", scene.bucket))
    crashed, counts = [], {}

    def before(statement):
        if statement.alias != alias or statement.within in crashed:
            return
        counts[statement.within] = counts.get(statement.within, 0) + 1
        if counts[statement.within] == place:
            crashed.append(statement.within)
            connections[alias].close()
            servers.restart(alias)

    with watched(before):
        finish(scene, waiting=application.write)
    application.close()
    assert len(crashed) > 4, crashed
    assert rows("shard_b", scene.bucket) == application.expected
    assert rows("shard_a", scene.bucket) == {}
    assert scene.states() == (None, "owned")
    assert scene.leftovers() == {}

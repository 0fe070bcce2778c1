"""
A server that crashes in each step of a move, and starts again: the mover goes on by itself.
"""

from __future__ import annotations

import pytest
from django.db import connections

from tests import servers
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.ways import impatient, in_each_step

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.slow,
]


@pytest.mark.parametrize("place", [1, 4])
@pytest.mark.parametrize("alias", ["shard_a", "shard_b", "default"])
def test_a_server_that_crashes_in_each_step(scene, monkeypatch, alias, place):
    impatient(monkeypatch)

    def crash():
        connections[alias].close()
        servers.restart(alias)

    crashed = in_each_step(scene, alias, place, crash)
    assert len(crashed) > 4, crashed

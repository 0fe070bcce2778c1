"""A target that is a standby, of an older version: servers of the test's own."""

from __future__ import annotations

import pytest
from django.db import connections

from scripts.cluster import Cluster
from sharding import env
from sharding.rebalance import preflight_pairs, preflight_servers
from sharding.rebalance.sessions import open_inspection
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.rebalance.preflights import SOURCE, TARGET

pytestmark = [
    pytest.mark.slow,
    pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY),
]


def test_a_standby_of_an_older_version(tmp_path, monkeypatch):
    cluster = Cluster(tmp_path / "old")
    try:
        cluster.up(shards=1, replicas=1, fast=True, version="16")
        (url,) = [url for variable, url in cluster.env().items() if variable == "SHARD_URL_A__REPLICA_1"]
        given = env.databases(environ={"DATABASE_URL": url})["default"]
        for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT"):
            monkeypatch.setitem(connections[TARGET].settings_dict, key, given[key])
        with open_inspection(SOURCE) as source, open_inspection(TARGET) as target:
            newer = source.connection.info.server_version // 10000
            assert [str(each) for each in preflight_servers.of_recovery(target)] == [
                "The server of 'shard_b' is a standby, which takes no writes. Correct its URL, or promote it."
            ]
            found = [str(each) for each in preflight_pairs.of_servers(source, target) if each.check == "versions"]
            assert found == [
                f"'shard_b' has PostgreSQL 16, and 'shard_a' has {newer}: an older one may not know what rows of a "
                f"newer one hold. Upgrade 'shard_b' first."
            ]
            assert not [each for each in preflight_pairs.of_servers(target, source) if each.check == "versions"]
    finally:
        cluster.destroy()

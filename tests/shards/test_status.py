"""The command `shards status`: sound, broken and half-dead clusters."""

from __future__ import annotations

import json
import re
import socket
import time

import pytest
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import override_settings

from sharding import cluster_map
from sharding.control import BucketOwner, Cluster, ShardIdentity
from sharding.fence import raising
from sharding.operations import status
from tests.shards.command import ALIASES, ROLLED_BACK, SHARDS, execute, lines, refused, run
from tests.shop.models import Order


@ROLLED_BACK
def test_status():
    Order.objects.create(tenant_id=42)
    for alias in ALIASES:
        execute(alias, "/* control database only */ ANALYZE")
    printed = lines(run("status", "--exact"))
    cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).get()
    data = json.loads(run("status", "--json"))
    server = data["databases"]["shard_a"]["server"]
    assert [without_size(line) for line in printed] == [
        f"Cluster {cluster.uuid}",
        f"epoch {cluster.epoch}, 4096 buckets, hash mmh3",
        "",
        "database server buckets rows size epoch identity fence",
        "─",
        "default up 0 0 SIZE 1 ok ok",
        "shard_a up 1,366 1 SIZE 1 ok ok",
        "shard_b up 1,365 0 SIZE 1 ok ok",
        "shard_c up 1,365 0 SIZE 1 ok ok",
        "",
        "Imbalance: sd 0.03 %, max/mean 1.000",
        f"Servers: PostgreSQL {server['version'] // 10000}, UTF8, {server['collation']}",
    ]
    assert max(map(len, printed)) <= 80
    assert (data["sound"], data["epoch"], data["buckets"], data["hash"]) == (True, cluster.epoch, 4096, "mmh3")
    assert data["databases"]["shard_a"] == {
        **{"up": True, "number": 1, "buckets": 1366, "rows": 1, "epoch": 1, "identified": True, "fenced": True},
        **{"in_doubt": 0, "oldest_in_doubt": None, "problems": []},
        "bytes": data["databases"]["shard_a"]["bytes"],
        "server": server,
    }


def without_size(line):
    """How large the tables are, and so how wide the table is, depends on the tests before."""
    return " ".join(re.sub("─+", "─", re.sub(r"[\d.]+ [kM]B", "SIZE", line)).split())


@pytest.mark.django_db(databases=ALIASES, transaction=True)
def test_status_while_a_shard_is_down():
    connection = connections["shard_b"]
    connection.close()
    port = connection.settings_dict["PORT"]
    connection.settings_dict["PORT"] = "1"
    try:
        printed, complaint = refused("status")
        data = json.loads(refused("status", "--json")[0])
        audited, audit_complaint = refused("audit")
        init_complaint = refused("init")[1]
    finally:
        connection.settings_dict["PORT"] = port
    assert complaint == "Something is wrong with shard_b."
    row = next(line for line in lines(printed) if line.startswith("shard_b"))
    assert row.split() == ["shard_b", "DOWN", "1,365", "-", "-", "-", "-", "-"]
    assert any("shard_b: connection " in line and "refused" in line for line in lines(printed))
    assert data["sound"] is False
    assert {alias: data["databases"][alias]["up"] for alias in ALIASES} == {
        **{"default": True, "shard_a": True},
        **{"shard_b": False, "shard_c": True},
    }
    assert audit_complaint == "Not every database was audited: shard_b."
    assert "shard_b does not answer: connection " in audited
    assert init_complaint.startswith(
        "Nothing was initialised, because some databases do not answer. shard_b: connection "
    )
    password = connection.settings_dict["PASSWORD"]
    assert not password or password not in printed + audited + init_complaint


@pytest.mark.django_db(databases=ALIASES, transaction=True)
def test_a_server_that_never_answers_counts_as_down(monkeypatch):
    # The least that libpq takes for a timeout.
    monkeypatch.setattr(status, "CONNECT_TIMEOUT", 2)
    connection = connections["shard_b"]
    connection.close()
    port, options = connection.settings_dict["PORT"], dict(connection.settings_dict["OPTIONS"])
    with socket.create_server(("127.0.0.1", 0)) as silent:
        connection.settings_dict["PORT"] = str(silent.getsockname()[1])
        began = time.monotonic()
        try:
            data = json.loads(refused("status", "--json")[0])
        finally:
            connection.settings_dict["PORT"] = port
    assert data["databases"]["shard_b"]["up"] is False
    assert time.monotonic() - began < 120
    assert connections["shard_b"] is connection
    assert connection.settings_dict["OPTIONS"] == options


@pytest.mark.django_db(databases=ALIASES, transaction=True)
def test_status_while_the_control_database_is_down():
    connection = connections["default"]
    connection.close()
    port = connection.settings_dict["PORT"]
    connection.settings_dict["PORT"] = "1"
    try:
        data = json.loads(refused("status", "--json")[0])
        explained = refused("explain", "shop.Order", "tenant_id=1")[1] if cluster_map.known() is None else None
    finally:
        connection.settings_dict["PORT"] = port
    assert data["problems"] == ["The bucket map is not known, because the control database is down."]
    assert data["databases"]["default"]["up"] is False
    assert data["databases"]["shard_a"]["up"] is True
    assert explained is None or explained.startswith("A database does not answer: ")


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_status_before_init():
    printed, complaint = refused("status")
    assert lines(printed)[:2] == ["Not initialised", "epoch -, 4096 buckets, hash mmh3"]
    assert lines(printed)[-1].strip() == (
        "The control database holds no bucket map. Run `manage.py migrate_all` and then `shards init`."
    )
    assert complaint == "Something is wrong with the cluster."
    with override_settings(SHARDING={"SHARDS": []}):
        assert json.loads(run("status", "--json"))["databases"]["default"]["buckets"] == 4096


@ROLLED_BACK
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (
            lambda: ShardIdentity.objects.using("shard_c").update(epoch=9),
            "The database of 'shard_c' has seen epoch 9 of the bucket map, and the control database holds epoch 1.",
        ),
        (
            lambda: ShardIdentity.objects.using("shard_c").delete(),
            "It has no identity. Run `manage.py shards init` again.",
        ),
        (
            lambda: execute("shard_c", "DROP TABLE shop_line"),
            "It has no table of shop.Line. Run `manage.py migrate_all`.",
        ),
        (
            lambda: BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(shard="shard_c").update(shard="shard_d"),
            "It is not in DATABASES, and its rows are there.",
        ),
    ],
    ids=["epoch", "identity", "table", "alias"],
)
def test_status_names_what_is_wrong(spoil, problem):
    Cluster.objects.using(DEFAULT_DB_ALIAS).update(epoch=1)
    spoil()
    printed, complaint = refused("status", "--json")
    wrong = {alias: each["problems"] for alias, each in json.loads(printed)["databases"].items() if each["problems"]}
    assert list(wrong.values()) == [[problem]]
    (alias,) = wrong
    assert complaint == f"Something is wrong with {', '.join(wrong)}."
    assert f"  {alias}: {problem}" in lines(refused("status")[0])


@ROLLED_BACK
def test_status_names_an_owner_that_the_shards_do_not_list():
    with override_settings(SHARDING={"SHARDS": ["shard_a", "shard_b"]}):
        printed, complaint = refused("status")
    assert complaint == "Something is wrong with shard_c."
    assert "  shard_c: It owns buckets, and SHARDING['SHARDS'] does not list it. List it again." in lines(printed)


@pytest.mark.parametrize("arguments", [["status"], ["init"], ["audit"], ["explain", "shop.Order"]], ids=" ".join)
def test_a_setting_that_is_wrong(arguments):
    with override_settings(SHARDING={"SHARDS": SHARDS, "BUCKETS": 0}):
        assert refused(*arguments) == (
            "",
            "SHARDING['BUCKETS'] must be an integer from 1 to 4096, not 0. Leave it out for 4096. It can never change "
            "once the cluster is initialised.",
        )


@ROLLED_BACK
def test_status_of_a_map_with_holes_under_other_settings():
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket=7).delete()
    with override_settings(SHARDING={"SHARDS": SHARDS, "BUCKETS": 1024}):
        assert json.loads(refused("status", "--json")[0])["problems"] == [
            "The cluster was initialised with BUCKETS=4096 and HASH='mmh3', but SHARDING says BUCKETS=1024 and "
            "HASH='mmh3'. Put the former back.",
            "Entries of the bucket map are missing. Restore sharding_bucket from a backup.",
        ]


@ROLLED_BACK
def test_status_says_where_rows_were_never_estimated():
    # A new table, which autovacuum has not seen.
    execute("shard_b", "CREATE TABLE renamed (LIKE shop_ledger)")
    execute("shard_b", "DROP TABLE shop_ledger")
    execute("shard_b", "ALTER TABLE renamed RENAME TO shop_ledger")
    execute("shard_b", "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (0, 1, 1, '')")
    raising.raise_around("shard_b")
    said = next(line for line in lines(run("status")) if line.startswith("Rows of "))
    assert "shard_b" in said
    assert said.endswith(" were never estimated: run ANALYZE there, or use --exact.")
    assert json.loads(run("status", "--json"))["databases"]["shard_b"]["rows"] is None
    assert json.loads(run("status", "--json", "--exact"))["databases"]["shard_b"]["rows"] == 1

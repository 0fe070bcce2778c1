"""What the shards' servers must have in common: whole messages, on real databases where these can be made to differ."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from django.core.checks import Tags, Warning, run_checks
from django.db import DEFAULT_DB_ALIAS, connections
from django.test import override_settings

from sharding.cluster_checks import check_servers
from sharding.control import BucketOwner
from sharding.operations import servers, status
from sharding.operations.servers import Collation, Difference, Server, differences, server_of
from tests.downtime import down
from tests.garden import garden, migrated, running_servers
from tests.other_database import another_database
from tests.shards.command import lines, run

__all__ = ["garden", "migrated", "running_servers"]

ALIASES = ["default", "shard_a", "shard_b", "shard_c"]
ON_CLUSTER = pytest.mark.django_db(databases="__all__")

FINNISH = Collation("libc fi_FI.UTF-8", "2.36", "2.36")
SAME = Server(180001, "UTF8", FINNISH, {"shop_tag.label": Collation("loose icu und nondeterministic")}, "digest")
ON_SERVERS = (
    "on servers with the same version of its library. Until then, queries that sort this text over several shards "
    "raise CannotMerge."
)

DIFFERENCES = {
    "versions": (
        replace(SAME, version=150014),
        Difference(
            "sharding.W070",
            "The shards are on different major versions of PostgreSQL: 18 (shard_a, shard_c); 15 (shard_b).",
            "Upgrade them to one version. Until then, answers depend on the shard where versions compute or sort "
            "differently.",
        ),
    ),
    "minor versions": (replace(SAME, version=180003), None),
    "encodings": (
        replace(SAME, encoding="LATIN1"),
        Difference(
            "sharding.W071",
            "The databases of the shards have different encodings: UTF8 (shard_a, shard_c); LATIN1 (shard_b).",
            "Create them all with UTF8. What one of them can store, another one refuses.",
        ),
    ),
    "collations": (
        replace(SAME, collation=Collation("builtin C.UTF-8", "1", "1")),
        Difference(
            "sharding.W072",
            "The databases of the shards have different collations: libc fi_FI.UTF-8 2.36 (shard_a, shard_c); builtin "
            "C.UTF-8 1 (shard_b).",
            f"Create them with one collation, {ON_SERVERS}",
        ),
    ),
    "versions of a collation": (
        replace(SAME, collation=Collation("libc fi_FI.UTF-8", "2.31", "2.31")),
        Difference(
            "sharding.W072",
            "The databases of the shards have different collations: libc fi_FI.UTF-8 2.36 (shard_a, shard_c); libc "
            "fi_FI.UTF-8 2.31 (shard_b).",
            f"Create them with one collation, {ON_SERVERS}",
        ),
    ),
    "a column": (
        replace(SAME, columns={}),
        Difference(
            "sharding.W073",
            "The column shop_tag.label has different collations: loose icu und nondeterministic (shard_a, shard_c); "
            "the database's own (shard_b).",
            f"Give it one collation, {ON_SERVERS}",
        ),
    ),
    "an old database": (
        replace(SAME, collation=replace(FINNISH, recorded="2.31")),
        Difference(
            "sharding.W074",
            "The database of 'shard_b' was made with version 2.31 of its collation libc fi_FI.UTF-8, and its server "
            "has 2.36 today.",
            "Its indexes of text may be in the wrong order. Run REINDEX DATABASE and then ALTER DATABASE … REFRESH "
            "COLLATION VERSION.",
        ),
    ),
    "local times": (
        replace(SAME, local_times=None),
        Difference(
            "sharding.W075",
            "The servers of the shards disagree on the local times of 'UTC' (TIME_ZONE): shard_a, shard_c against "
            "shard_b.",
            "Update their time zone data (tzdata) to one version. Until then, the days and hours that they compute may "
            "differ.",
        ),
    ),
}


@pytest.mark.parametrize(("other", "expected"), DIFFERENCES.values(), ids=DIFFERENCES)
def test_differences(other: Server, expected: Difference | None) -> None:
    found = list(differences({"shard_a": SAME, "shard_b": other, "shard_c": SAME}))
    assert found == ([expected] if expected else [])


def test_one_server_differs_from_none() -> None:
    assert list(differences({"shard_a": SAME})) == []
    assert list(differences({})) == []


@ON_CLUSTER
def test_a_cluster_whose_servers_are_alike_is_silent() -> None:
    assert check_servers(None, databases=ALIASES) == []
    own = server_of(connections["shard_a"])
    assert own is not None
    assert (own.version, own.encoding) == (connections["shard_a"].pg_version, "UTF8")
    assert own.local_times == server_of(connections["shard_b"]).local_times
    with override_settings(TIME_ZONE="Europe/Helsinki"):
        assert server_of(connections["shard_a"]).local_times not in {None, own.local_times}


@ON_CLUSTER
def test_a_zone_that_a_server_does_not_know(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servers.timezone, "get_default_timezone_name", lambda: "Europe/Atlantis")
    assert server_of(connections["shard_a"]).local_times is None


@ON_CLUSTER
def test_a_database_of_another_encoding_and_collation() -> None:
    own = server_of(connections["shard_a"])
    assert own is not None
    with another_database("shard_b", "ENCODING 'LATIN1' LOCALE_PROVIDER libc LOCALE 'C'") as connection:
        other = server_of(connection)
    assert other is not None
    assert (other.encoding, str(other.collation), dict(other.columns)) == ("LATIN1", "libc C", {})
    found = [each.message for each in differences({"shard_a": own, "shard_b": other})]
    assert found[:2] == [
        "The databases of the shards have different encodings: UTF8 (shard_a); LATIN1 (shard_b).",
        f"The databases of the shards have different collations: {own.collation} (shard_a); libc C (shard_b).",
    ]


ALTERED = 'ALTER TABLE shop_ledger ALTER COLUMN text TYPE varchar(20) COLLATE "C"'
MESSAGE = (
    "The column shop_ledger.text has different collations: the database's own (shard_a, shard_c); C libc (shard_b)."
)


def alter(alias: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"/* control database only */ {ALTERED}")


@ON_CLUSTER
def test_a_column_of_another_collation() -> None:
    alter("shard_b")
    expected = Warning(MESSAGE, hint=f"Give it one collation, {ON_SERVERS}", id="sharding.W073")
    assert check_servers(None, databases=ALIASES) == [expected]
    assert expected in run_checks(tags=[Tags.database], databases=ALIASES)
    # What is not named is not asked, and one database alone is like itself.
    assert check_servers(None, databases=["default", "shard_a", "shard_c", "reference"]) == []
    assert check_servers(None, databases=["shard_b"]) == []
    assert check_servers(None) == []


@ON_CLUSTER
def test_the_control_database_counts_when_it_owns_buckets() -> None:
    alter("default")
    assert check_servers(None, databases=ALIASES) == []
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket=7).update(shard="default")
    assert [each.msg for each in check_servers(None, databases=ALIASES)] == [
        "The column shop_ledger.text has different collations: the database's own (shard_a, shard_b, shard_c); C libc "
        "(default)."
    ]


@pytest.mark.django_db(databases="__all__", transaction=True)
def test_a_database_that_is_down_is_reported_elsewhere() -> None:
    with down("shard_b"):
        assert check_servers(None, databases=ALIASES) == []


@ON_CLUSTER
def test_status_shows_servers_and_warns() -> None:
    own = server_of(connections["shard_a"])
    assert own is not None
    about = f"PostgreSQL {own.major}, UTF8, {own.collation}"
    assert f"Servers: {about}" in lines(run("status"))
    assert json.loads(run("status", "--json"))["warnings"] == []
    alter("shard_b")
    assert f"Warning: {MESSAGE} Give it one collation, {ON_SERVERS}" in lines(run("status"))
    data = json.loads(run("status", "--json"))
    assert (data["sound"], data["warnings"]) == (True, [MESSAGE])
    assert data["databases"]["shard_b"]["server"] == {
        "version": own.version,
        "encoding": "UTF8",
        "collation": str(own.collation),
    }


@ON_CLUSTER
def test_status_names_servers_that_are_not_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    def one_is_older(connection: Any) -> Server | None:
        found = server_of(connection)
        return found and (replace(found, version=150009) if connection.alias == "shard_c" else found)

    monkeypatch.setattr(status, "server_of", one_is_older)
    own = server_of(connections["shard_a"])
    assert own is not None
    shown = [line for line in lines(run("status")) if line.startswith(("Servers", "Warning"))]
    message, hint = DIFFERENCES["versions"][1].message, DIFFERENCES["versions"][1].hint
    message = message.replace("18 (shard_a, shard_c); 15 (shard_b)", f"{own.major} (shard_a, shard_b); 15 (shard_c)")
    assert shown == [
        f"Servers: PostgreSQL {own.major}, UTF8, {own.collation} (default, shard_a, shard_b)",
        f"Servers: PostgreSQL 15, UTF8, {own.collation} (shard_c)",
        f"Warning: {message} {hint}",
    ]


@pytest.mark.db
def test_migrate_all_warns(migrated: Any) -> None:
    assert migrated.succeed("migrate_all") == "No migrations to apply.\n"
    migrated.ask("shard_b", 'ALTER TABLE garden_plant ALTER COLUMN name TYPE varchar(40) COLLATE "C"')
    assert migrated.succeed("migrate_all").splitlines() == [
        "No migrations to apply.",
        "Warning: The column garden_plant.name has different collations: the database's own (shard_a, shard_c); C libc "
        f"(shard_b). Give it one collation, {ON_SERVERS}",
    ]
    assert migrated.succeed("migrate_all", "-v", "0") == ""


@pytest.mark.debian
@ON_CLUSTER
def test_collations_of_a_server_in_the_field() -> None:
    with connections["shard_b"].cursor() as cursor:
        cursor.execute("CREATE COLLATION old (provider = icu, locale = 'sv', version = '1.5')")
        cursor.execute("/* control database only */ ALTER TABLE shop_ledger ALTER text TYPE varchar(20) COLLATE old")
    own, other = server_of(connections["shard_a"]), server_of(connections["shard_b"])
    assert own is not None
    assert other is not None
    assert own.collation.definition == "libc en_US.UTF-8"
    assert own.collation.actual is not None
    assert own.collation.actual == own.collation.recorded
    today = other.columns["shop_ledger.text"].actual
    assert [each.message for each in differences({"shard_a": own, "shard_b": other})] == [
        f"The column shop_ledger.text has different collations: the database's own (shard_a); old icu sv {today} "
        f"(shard_b).",
        f"The collation old icu sv of shop_ledger.text on 'shard_b' was made with version 1.5, and the server has "
        f"{today} today.",
    ]

"""The names of database variables: which are refused, and why."""

from __future__ import annotations

import pytest

from sharding import database_variable
from sharding.database_variable import UnusableName

NO_VARIABLE = (
    "is not the name of a database variable. The names are DATABASE_URL, DATABASE_URL_<APP> and SHARD_URL_<NAME>, "
    "each alone or followed by __REPLICA_<NUMBER> or __DIRECT."
)


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["DATABASE_URL_"], f"'DATABASE_URL_' {NO_VARIABLE}"),
        (["SHARD_URL_A__REPLICA"], f"'SHARD_URL_A__REPLICA' {NO_VARIABLE}"),
        (["SHARD_URL_A__REPLICA_0"], f"'SHARD_URL_A__REPLICA_0' {NO_VARIABLE}"),
        (["SHARD_URL_A__REPLICA_01"], f"'SHARD_URL_A__REPLICA_01' {NO_VARIABLE}"),
        (["SHARD_URL_A__PRIMARY"], f"'SHARD_URL_A__PRIMARY' {NO_VARIABLE}"),
        (["SHARD_URL_A__direct"], f"'SHARD_URL_A__direct' {NO_VARIABLE}"),
        (["SHARD_URL_A__DIRECT__REPLICA_1"], f"'SHARD_URL_A__DIRECT__REPLICA_1' {NO_VARIABLE}"),
        (["SHARD_URL_A.B"], f"'SHARD_URL_A.B' {NO_VARIABLE}"),
        (["SHARD_URL_A\n"], f"'SHARD_URL_A\\n' {NO_VARIABLE}"),
        (["SHARD_URL"], "SHARD_URL names no shard. Write SHARD_URL_<NAME>, for example SHARD_URL_A for shard_a."),
        (
            ["SHARD_URL__DIRECT"],
            "SHARD_URL__DIRECT names no shard. Write SHARD_URL_<NAME>, for example SHARD_URL_A for shard_a.",
        ),
        (
            ["SHARD_URL_A_REPLICA_1"],
            "SHARD_URL_A_REPLICA_1 has one underscore before REPLICA_1. Write SHARD_URL_A__REPLICA_1, with two.",
        ),
        (
            ["DATABASE_URL_replica_1"],
            "DATABASE_URL_replica_1 has one underscore before replica_1. Write DATABASE_URL__REPLICA_1, with two.",
        ),
        (
            ["DATABASE_URL_DIRECT"],
            "DATABASE_URL_DIRECT has one underscore before DIRECT. Write DATABASE_URL__DIRECT, with two.",
        ),
        (
            ["DATABASE_URL_SHARD_A"],
            "DATABASE_URL_SHARD_A describes an app database, but its alias 'shard_a_db' would count as a shard. Write "
            "SHARD_URL_<NAME> for a shard, and another name for an app database.",
        ),
        (
            ["SHARD_URL_A_REPLICA_EU"],
            "SHARD_URL_A_REPLICA_EU describes a primary, but its alias 'shard_a_replica_eu' would count as a replica. "
            "Write another name, or __REPLICA_<NUMBER> after the name of the primary's variable.",
        ),
        (
            ["SHARD_URL_A", "SHARD_URL_a"],
            "SHARD_URL_A and SHARD_URL_a both describe the alias 'shard_a'. Keep one of them.",
        ),
        (
            ["DATABASE_URL_BLOG", "DATABASE_URL_BLOG__DIRECT", "DATABASE_URL_Blog__DIRECT"],
            "DATABASE_URL_BLOG__DIRECT and DATABASE_URL_Blog__DIRECT both describe the alias 'blog_db'. Keep one of "
            "them.",
        ),
        *(
            (
                [name],
                f"{name!r} is not the name of a database variable. The names are DATABASE_URL, DATABASE_URL_<APP> and "
                f"SHARD_URL_<NAME>, each alone or followed by __REPLICA_<NUMBER> or __DIRECT.",
            )
            for name in ("database_url", "shard_url_a", "Shard_Url_A")
        ),
        (
            ["SHARD_URL_B__REPLICA_1"],
            "SHARD_URL_B__REPLICA_1 is set, but SHARD_URL_B is not. Set SHARD_URL_B too, or unset "
            "SHARD_URL_B__REPLICA_1.",
        ),
        (
            ["SHARD_URL_B__DIRECT"],
            "SHARD_URL_B__DIRECT is set, but SHARD_URL_B is not. Set SHARD_URL_B too, or unset SHARD_URL_B__DIRECT.",
        ),
        (
            ["DATABASE_URL__REPLICA_1__DIRECT"],
            "DATABASE_URL__REPLICA_1__DIRECT is set, but DATABASE_URL__REPLICA_1 is not. Set DATABASE_URL__REPLICA_1 "
            "too, or unset DATABASE_URL__REPLICA_1__DIRECT.",
        ),
    ],
)
def test_refused_names(extra, message):
    with pytest.raises(UnusableName) as caught:
        database_variable.read(["PATH", "DATABASE_URL", *extra])
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["SHARD_URL_A", "DATABASE_URL_BLOG"])
def test_a_cluster_needs_its_control_database(name):
    with pytest.raises(UnusableName) as caught:
        database_variable.read([name])
    assert str(caught.value) == (
        f"{name} is set, but DATABASE_URL is not. Set DATABASE_URL to the URL of the control database, the alias "
        f"'default'."
    )

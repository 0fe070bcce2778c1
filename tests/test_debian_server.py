"""What the tests marked ``debian`` rely on, and the servers that pip installs do not have."""

from __future__ import annotations

import pytest
from django.db import connections

pytestmark = [pytest.mark.debian, pytest.mark.django_db(databases=["default", "shard_a"])]


def column(query: str, alias: str = "shard_a") -> list[str]:
    with connections[alias].cursor() as cursor:
        cursor.execute(query)
        return [value for (value,) in cursor.fetchall()]


def test_version() -> None:
    assert column("SHOW server_version_num")[0].startswith("15")


@pytest.mark.parametrize("alias", ["default", "shard_a"])
def test_databases_are_in_a_language(alias: str) -> None:
    assert column("SELECT datcollate FROM pg_database WHERE datname = current_database()", alias) == ["en_US.UTF-8"]
    assert column("SELECT x FROM unnest('{é,a,_,B}'::text[]) x ORDER BY x", alias) == ["_", "a", "B", "é"]


def test_icu_collations() -> None:
    assert column("""SELECT x FROM unnest('{é,a,_,B}'::text[]) x ORDER BY x COLLATE "und-x-icu" """) == [
        *("_", "a", "B", "é")
    ]


@pytest.mark.parametrize("name", ["citext", "pg_trgm", "hstore"])
def test_contrib_for_an_ordinary_role(name: str) -> None:
    with connections["shard_a"].cursor() as cursor:
        cursor.execute(f"CREATE EXTENSION {name}")

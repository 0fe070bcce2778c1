"""``migrate`` alone: one database, and a word on those it left alone."""

from __future__ import annotations

import socket
import time

import pytest

from tests.garden import HEIGHT, MODELS, columns, garden, migrated, project, running_servers
from tests.migrating_project import Project, sqlite_databases

__all__ = ["garden", "migrated", "project", "running_servers"]

REFUSED = 'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
OTHERS = "shard_a (1 unapplied), shard_b (1 unapplied), shard_c (1 unapplied)"


@pytest.fixture
def grown(migrated):
    """The project, with one migration to apply."""
    migrated.write("garden/models.py", f"{MODELS}    height = models.IntegerField(null=True)\n")
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    return migrated


@pytest.mark.db
def test_it_says_which_databases_it_left_alone_until_there_are_none(grown):
    last = grown.succeed("migrate").splitlines()[-1]
    assert last == f"Only default was migrated, not {OTHERS}. Run `manage.py migrate_all` to migrate them too."
    assert "height" not in columns(grown, "shard_a")
    last = grown.succeed("migrate", "--database", "shard_b").splitlines()[-1]
    assert last == (
        "Only shard_b was migrated, not shard_a (1 unapplied), shard_c (1 unapplied). "
        "Run `manage.py migrate_all` to migrate them too."
    )
    for alias in ("shard_a", "shard_c"):
        grown.succeed("migrate", "--database", alias, "-v", "0")
    assert grown.succeed("migrate").splitlines()[-1] == "  No migrations to apply."


@pytest.mark.db
def test_it_is_quiet_at_verbosity_0_and_where_it_changes_nothing(grown):
    assert grown.succeed("migrate", "--plan").splitlines()[-1] == "    Add field height to plant"
    assert grown.manage("migrate", "--check") == (1, "", "")
    assert "Only" not in grown.succeed("migrate", "garden", "--prune")
    assert grown.succeed("migrate", "-v", "0") == ""


@pytest.mark.db
def test_a_database_that_is_down_is_named_and_nothing_fails(grown):
    grown.take_down("shard_a")
    started = time.monotonic()
    lines = grown.succeed("migrate").splitlines()
    assert time.monotonic() - started < 120
    assert lines[-2:] == [
        "Only default was migrated, not shard_b (1 unapplied), shard_c (1 unapplied). "
        "Run `manage.py migrate_all` to migrate them too.",
        f"Whether shard_a has unapplied migrations could not be asked: {REFUSED}",
    ]


@pytest.mark.db
def test_a_server_that_never_answers_is_not_waited_for(grown):
    """The address takes connections and says nothing, as behind a firewall."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        grown.addresses["shard_a"] = {**grown.addresses["shard_a"], "HOST": "127.0.0.1", "PORT": str(port)}
        grown.addresses["shard_b"] = {**grown.addresses["shard_b"], "HOST": "127.0.0.1", "PORT": str(port)}
        grown.configure("garden")
        started = time.monotonic()
        lines = grown.succeed("migrate").splitlines()
        # Three seconds, for both at the same time.
        assert time.monotonic() - started < 120
    assert [line.partition(":")[0] for line in lines[-2:]] == [
        f"Whether {alias} has unapplied migrations could not be asked" for alias in ("shard_a", "shard_b")
    ]


@pytest.mark.db
def test_it_takes_what_djangos_own_takes(grown):
    grown.succeed("migrate", "garden", "0002", "--database", "shard_b", "--fake", "-v", "0")
    assert "height" not in columns(grown, "shard_b")
    grown.succeed("migrate", "garden", "0001", "--database", "shard_b", "--fake", "-v", "0")
    grown.succeed("migrate", "garden", "--database", "shard_b", "-v", "0")
    assert "height" in columns(grown, "shard_b")


def test_the_databases_of_a_test_run_are_made_without_a_word(tmp_path):
    project = Project(tmp_path, sqlite_databases(tmp_path, "default", "shard_a"))
    project.addresses["plain"] = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(tmp_path / "plain.sqlite3")}
    project.configure("garden")
    project.write("garden/models.py", "")
    project.write(
        "garden/tests.py",
        """
        from django.test import TestCase

        class Empty(TestCase):
            databases = {"default", "shard_a", "plain"}

            def test(self):
                pass
    """,
    )
    code, output, errors = project.manage("test", "-v", "2")
    assert code == 0, errors
    assert "Applying sharding.0001_initial... OK" in output
    assert "was migrated" not in output
    assert "could not be asked" not in output


def test_a_cluster_of_one_has_nobody_to_speak_of(tmp_path):
    project = Project(tmp_path, sqlite_databases(tmp_path, "default"))
    project.configure("garden")
    project.write("garden/models.py", "")
    assert project.succeed("migrate").splitlines()[-1].startswith("  Applying sharding.")
    lines = project.succeed("migrate_all", "--check").splitlines()
    [header, found] = [line.split() for line in lines]
    assert (header, found[0], found[2]) == (["Database", "Applied", "Pending"], "default", "0")

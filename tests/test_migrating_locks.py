"""``migrate_all`` among others: held locks, a second run at the same time, and poolers between."""

from __future__ import annotations

import re
import signal
import socket
import sqlite3
import threading
import time
from contextlib import closing, contextmanager

import pytest

from sharding.direct_connection import direct_variable
from sharding.migrating.one_database import LOCK
from tests.garden import (
    ALTERING,
    HEIGHT,
    INITIAL,
    MODELS,
    SHARDS,
    columns,
    garden,
    migrated,
    running_servers,
    without_times,
)
from tests.migrating_project import Project, sqlite_databases

__all__ = ["garden", "migrated", "running_servers"]

pytestmark = pytest.mark.db

ONLY_B = ("migrate_all", "--database", "shard_b", "--lock-timeout", "0.2")
AGAIN = "Correct the cause and run `manage.py migrate_all` again: what is applied is not repeated.\n"
INTERRUPTED = (
    "CommandError: Interrupted. Run `manage.py migrate_all` again to go on: what is applied is not repeated.\n"
)
TIMED_OUT = "canceling statement due to lock timeout"


@contextmanager
def reader(project, alias):
    """Hold the lock that an open transaction has on a table it read."""
    with closing(project.connect(alias)) as connection:
        connection.execute("BEGIN")
        connection.execute("SELECT FROM garden_plant")
        yield


def test_a_lock_that_stays_held_fails_the_migration_and_no_longer_blocks_others(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    with reader(migrated, "shard_b"):
        code, output, errors = migrated.manage(*ONLY_B, "--retries", "1")
    assert (code, errors) == (
        1,
        f"CommandError: shard_b was not migrated, garden.0002_height failed: {TIMED_OUT}\n{AGAIN}",
    )
    assert output.splitlines() == [
        "shard_b: garden.0002_height waits for locks that others hold; again in 1 s",
        "shard_b: failed in garden.0002_height",
    ]
    assert "height" not in columns(migrated, "shard_b")


def test_a_migration_is_repeated_until_the_lock_is_free(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    with reader(migrated, "shard_b"):
        process = migrated.start(*ONLY_B)
        assert "waits for locks" in process.stdout.readline()
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    # It may have tried once more before the lock was free.
    assert output.splitlines()[-1].startswith("shard_b: applied garden.0002_height")
    assert "height" in columns(migrated, "shard_b")


def test_a_migration_without_a_transaction_is_not_repeated(migrated):
    # The second operation waits, and the first one is done for good: a repetition would trip over it.
    migrated.migration(
        "garden",
        "0002_height",
        f"""migrations.CreateModel("Bed", [
            ("bucket", BucketField()), ("id", models.IntegerField(primary_key=True))]), {HEIGHT}""",
        after=["0001_initial"],
        more="ATOMIC = False",
    )
    with reader(migrated, "shard_b"):
        code, output, errors = migrated.manage(*ONLY_B, "--retries", "3")
    assert (code, output) == (1, "shard_b: failed in garden.0002_height\n")
    assert errors == f"CommandError: shard_b was not migrated, garden.0002_height failed: {TIMED_OUT}\n{AGAIN}"
    assert columns(migrated, "shard_b", "garden_bed") == ["bucket", "id"]


def test_a_run_waits_for_another_one_on_the_same_database(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    with closing(migrated.connect("shard_b")) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        process = migrated.start(*ONLY_B)
        assert process.stdout.readline() == "shard_b: waiting for another migrate_all to finish here\n"
        assert "height" not in columns(migrated, "shard_b")
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (0, "")
    assert output.startswith("shard_b: applied garden.0002_height")


def test_a_run_that_waits_can_be_interrupted(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    with closing(migrated.connect("shard_b")) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        process = migrated.start(*ONLY_B)
        assert process.stdout.readline() == "shard_b: waiting for another migrate_all to finish here\n"
        process.send_signal(signal.SIGINT)
        output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, INTERRUPTED)
    assert sorted(output.splitlines()) == ["shard_b: stopped", "shard_b: stopping, after the migration that runs"]
    assert "height" not in columns(migrated, "shard_b")


def test_a_run_that_is_interrupted_ends_with_the_migration_that_runs(migrated):
    wait = """
        import time
        from pathlib import Path

        def wait(apps, schema_editor):
            while not Path("interrupted").exists():
                time.sleep(0.05)
    """
    migrated.migration(
        "garden", "0002_height", f"{HEIGHT}, migrations.RunPython(wait)", after=["0001_initial"], more=wait
    )
    migrated.migration("garden", "0003_nothing", "migrations.RunPython(print)", after=["0002_height"])
    process = migrated.start(*ONLY_B)
    while not migrated.ask("shard_b", ALTERING)[0][0]:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "shard_b: stopping, after the migration that runs\n"
    migrated.write("interrupted", "")
    output, errors = process.communicate(timeout=120)
    assert (process.returncode, errors) == (130, INTERRUPTED)
    assert without_times(output) == [
        "shard_b: applied garden.0002_height (… s)",
        "shard_b: stopped",
    ]
    assert "height" in columns(migrated, "shard_b")


def test_runs_at_the_same_time_migrate_each_database_once(migrated):
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    runs = [migrated.start("migrate_all") for _ in range(3)]
    outputs = [run.communicate(timeout=120) for run in runs]
    assert [(run.returncode, errors) for run, (_, errors) in zip(runs, outputs, strict=True)] == [(0, "")] * 3
    lines = [line for output, _ in outputs for line in output.splitlines()]
    done = sorted(line.partition(":")[0] for line in lines if "applied" in line)
    assert done == ["default", *SHARDS]


class Pooler:
    """Passes bytes between a client and a server as PgBouncer does, and gives the session a number of its own."""

    def __init__(self, address):
        self.address = address
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self):
        return self.listener.getsockname()[1]

    def _serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(self.address)
            threading.Thread(target=self._pass_on, args=(client, server, bytes), daemon=True).start()
            threading.Thread(target=self._pass_on, args=(server, client, self._renumbered), daemon=True).start()

    @staticmethod
    def _renumbered(data):
        # BackendKeyData: a letter, the length, the number of the process, a secret.
        return re.sub(rb"K\x00\x00\x00\x0c....", b"K\x00\x00\x00\x0c\x00\x01\x02\x03", data, count=1, flags=re.DOTALL)

    @staticmethod
    def _pass_on(source, target, change):
        with source, target:
            try:
                while data := source.recv(65536):
                    target.sendall(change(data))
            except OSError:
                # The other direction has ended, and closed both.
                return


@pytest.mark.parametrize(
    ("alias", "variable"),
    [
        ("default", "DATABASE_URL__DIRECT"),
        ("shard_eu_1", "SHARD_URL_EU_1__DIRECT"),
        ("press_db", "DATABASE_URL_PRESS__DIRECT"),
    ],
)
def test_the_variable_of_a_direct_address(alias, variable):
    assert direct_variable(alias) == variable


def test_sqlite_waits_for_its_lock_and_tries_again(tmp_path):
    project = Project(tmp_path, sqlite_databases(tmp_path, "default"))
    project.configure("garden")
    project.write("garden/models.py", MODELS)
    project.migration("garden", "0001_initial", INITIAL)
    project.succeed("migrate_all", "sharding", "-v", "0")
    command = ("migrate_all", "--lock-timeout", "0.1", "--retries", "1")
    with closing(sqlite3.connect(tmp_path / "default.sqlite3", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        code, output, errors = project.manage(*command)
    assert output.splitlines()[0] == "default: garden.0001_initial waits for locks that others hold; again in 1 s"
    failed = "default was not migrated, garden.0001_initial failed: database is locked"
    assert (code, errors) == (1, f"CommandError: {failed}\n{AGAIN}")
    assert project.succeed(*command).startswith("default: applied garden.0001_initial")


@pytest.fixture
def pooled(migrated):
    """The project, whose shard_b is reached through a pooler."""
    address = migrated.addresses["shard_b"]
    pooler = Pooler((address["HOST"], int(address["PORT"])))
    migrated.addresses["shard_b"] = {**address, "HOST": "127.0.0.1", "PORT": str(pooler.port)}
    migrated.configure("garden")
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.direct = {key: address[key] for key in ("NAME", "USER", "PASSWORD", "HOST", "PORT")}
    yield migrated
    pooler.listener.close()


def test_a_pooler_is_refused(pooled):
    code, _, errors = pooled.manage("migrate_all")
    assert (code, errors) == (
        1,
        "CommandError: shard_b was not migrated, it cannot be reached: 'shard_b' is reached through a connection "
        "pooler, which shares one session among many clients. Give the server's own address in SHARD_URL_B__DIRECT.\n"
        f"{AGAIN}",
    )
    assert "height" in columns(pooled, "shard_c")


def test_the_direct_address_goes_past_a_pooler(pooled):
    address = pooled.addresses["shard_b"]
    address["DIRECT"] = {**pooled.direct, "OPTIONS": {}, "POOLED_NAME": address["NAME"]}
    pooled.configure("garden")
    pooled.succeed("migrate_all")
    assert "height" in columns(pooled, "shard_b")

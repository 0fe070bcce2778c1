"""
The app "garden" of the migration tests: a global and a sharded model, on a control database and three shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.migrating_project import Project, postgresql_databases

MODELS = """
from django.db import models
from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel

class Place(models.Model):
    name = models.CharField(max_length=40)

class Plant(ShardedModel):
    shard_key = "owner_id"
    id = ShardUUIDField(primary_key=True)
    owner_id = models.IntegerField()
    name = models.CharField(max_length=40)

    class Meta:
        indexes = [models.Index(fields=["bucket", "id"], name="plant_bucket")]
"""
INITIAL = """
    migrations.CreateModel("Place", [
        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
        ("name", models.CharField(max_length=40))]),
    migrations.CreateModel("Plant", [
        ("bucket", BucketField()), ("id", ShardUUIDField(primary_key=True, serialize=False)),
        ("owner_id", models.IntegerField()), ("name", models.CharField(max_length=40))],
        options={"indexes": [models.Index(fields=["bucket", "id"], name="plant_bucket")]}),
"""
HEIGHT = 'migrations.AddField("plant", "height", models.IntegerField(null=True))'
SHARDS = ("shard_a", "shard_b", "shard_c")
#: How many have the lock of a migration that changes the plants.
ALTERING = """
    SELECT count(*) FROM pg_locks JOIN pg_class ON pg_class.oid = relation
    WHERE relname = 'garden_plant' AND mode = 'AccessExclusiveLock'
    AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""


@pytest.fixture(scope="session")
def running_servers() -> Iterator[None]:
    with servers.running():
        yield


@pytest.fixture
def project(running_servers: None, tmp_path: Path) -> Iterator[Project]:
    """The app on a control database and three shards; nothing is migrated."""
    with postgresql_databases("default", *SHARDS) as addresses:
        yield _project(tmp_path, addresses)


@pytest.fixture
def migrated(garden: Project, tmp_path: Path) -> Iterator[Project]:
    """The app, with its first migration applied everywhere."""
    with postgresql_databases("default", *SHARDS, like=garden.addresses) as addresses:
        yield _project(tmp_path, addresses)


@pytest.fixture(scope="session")
def garden(running_servers: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """What ``migrated`` copies."""
    with postgresql_databases("default", *SHARDS) as addresses:
        made = _project(tmp_path_factory.mktemp("garden"), addresses)
        made.succeed("migrate_all", "-v", "0")
        yield made


def _project(folder: Path, addresses: dict[str, dict[str, Any]]) -> Project:
    made = Project(folder, addresses)
    made.configure("garden")
    made.write("garden/models.py", MODELS)
    made.migration("garden", "0001_initial", INITIAL)
    return made


def columns(project: Project, alias: str, table: str = "garden_plant") -> list[str]:
    """Return the columns of a table, sorted; none where it does not exist."""
    found = project.ask(alias, f"SELECT column_name FROM information_schema.columns WHERE table_name = '{table}'")
    return sorted(name for (name,) in found)


def without_times(output: str) -> list[str]:
    """Return the lines of what a run printed."""
    return [re.sub(r"\(\d+\.\d+ s\)", "(… s)", line) for line in output.splitlines()]

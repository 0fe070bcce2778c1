"""When a project gets fences: with the cluster that has shards, and not before."""

from __future__ import annotations

from typing import Any

import pytest

from sharding.hashing import MAX_BUCKETS
from tests.garden import SHARDS, garden, migrated, project, running_servers
from tests.migrating_project import Project

__all__ = ["garden", "migrated", "project", "running_servers"]

pytestmark = pytest.mark.db

DATABASES = ("default", *SHARDS)
PLANT = "from garden.models import Plant; Plant.objects.create(owner_id={}, name='fern')"
OF_ONE = 'DATABASES = {"default": DATABASES["default"]}'


def triggers(found: Project, alias: str) -> int:
    return int(found.ask(alias, "SELECT count(*) FROM pg_trigger WHERE tgname LIKE 'zz\\_sharding\\_fence%'")[0][0])


def owned(found: Project, alias: str) -> Any:
    return found.ask(alias, "SELECT count(*) FROM sharding_fence WHERE state = 'owned'")[0][0]


def test_before_the_cluster_is_initialised_there_is_nothing_to_defend(migrated: Project) -> None:
    assert [triggers(migrated, alias) for alias in DATABASES] == [0] * 4
    for alias in DATABASES:
        migrated.ask(
            alias,
            "INSERT INTO garden_plant (bucket, id, owner_id, name) "
            "VALUES (2612, '018bcfe5-6800-7a34-9a3c-5d1f0e6b7a28', 1, 'fern')",
        )
        migrated.ask(alias, "DELETE FROM garden_plant")
    migrated.succeed("shards", "init")
    assert [triggers(migrated, alias) for alias in DATABASES] == [4] * 4
    assert owned(migrated, "default") == 0
    assert sum(owned(migrated, alias) for alias in SHARDS) == MAX_BUCKETS
    for key in range(5):
        migrated.run(PLANT.format(key))
    migrated.succeed("shards", "status")


def test_a_cluster_of_one_has_none_until_it_gets_shards(project: Project) -> None:
    project.configure("garden", more=OF_ONE)
    # Whatever was run or not.
    for command in (["migrate", "-v", "0"], ["migrate_all", "-v", "0"], ["shards", "init"], ["migrate_all", "-v", "0"]):
        project.succeed(*command)
        assert (triggers(project, "default"), owned(project, "default")) == (0, 0)
        project.run(PLANT.format(1))
    project.configure("garden")
    project.succeed("migrate_all", "-v", "0")
    assert (triggers(project, "default"), owned(project, "default")) == (4, MAX_BUCKETS)
    project.run(PLANT.format(2))
    project.succeed("shards", "init")
    assert [(triggers(project, alias), owned(project, alias)) for alias in SHARDS] == [(4, 0)] * 3
    project.run(PLANT.format(3))
    project.succeed("shards", "status")


def test_a_table_that_no_model_has_loses_its_triggers_with_migrate_all(migrated: Project) -> None:
    migrated.succeed("shards", "init")
    migrated.migration("garden", "0002_rename", 'migrations.AlterModelTable("plant", "plants")', after=["0001_initial"])
    # By today's models, the table has no sharded model any more.
    assert "fenced public.plants" in migrated.succeed("migrate_all")
    assert [triggers(migrated, alias) for alias in DATABASES] == [0] * 4

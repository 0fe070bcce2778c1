"""migrate_all gives every shard the rows of reference models: after data migrations, to new tables, to new shards."""

from __future__ import annotations

import pytest

from tests.garden import SHARDS, garden, migrated, running_servers
from tests.migrating_project import Project

__all__ = ["garden", "migrated", "running_servers"]

pytestmark = pytest.mark.slow

MODELS = """
from django.db import models
from sharding.fields import ShardUUIDField
from sharding.models import ReferenceModel, ShardedModel

class Place(ReferenceModel):
    name = models.CharField(max_length=40)

class Plant(ShardedModel):
    shard_key = "owner_id"
    id = ShardUUIDField(primary_key=True)
    owner_id = models.IntegerField()
    name = models.CharField(max_length=40)
    place = models.ForeignKey(Place, models.CASCADE, null=True)

    class Meta:
        indexes = [models.Index(fields=["bucket", "id"], name="plant_bucket")]
"""
LOOSE = """
    migrations.AddField(
        "plant", "place", models.ForeignKey("garden.Place", models.CASCADE, null=True, db_constraint=False))
"""
FIRM = 'migrations.AlterField("plant", "place", models.ForeignKey("garden.Place", models.CASCADE, null=True))'
#: As a process of the release before wrote them: the places on the control database alone.
STORE = """
from garden.models import Place, Plant
for number in range(3):
    place = Place.objects.create(name=f"place {number}")
    Plant.objects.bulk_create([Plant(owner_id=owner, name="x", place_id=place.pk) for owner in range(8)])
print(Place.objects.count())
"""
FILL = """
def fill(apps, schema_editor):
    Place = apps.get_model("garden", "Place")
    Place.objects.create(name="from a migration")
    Place.objects.filter(name="place 0").update(name="renamed by a migration")
"""
TESTS = """
from django.test import TestCase
from garden.models import Place, Plant

class Planting:
    databases = "__all__"

    def test_planting(self):
        place = Place.objects.create(name="here")
        Plant.objects.bulk_create([Plant(owner_id=owner, name="x", place=place) for owner in range(8)])

class One(Planting, TestCase): pass
class Two(Planting, TestCase): pass
"""
PLACES = "SELECT * FROM garden_place ORDER BY id"
KEYS = "SELECT count(*) FROM pg_constraint WHERE contype = 'f' AND conrelid = 'garden_plant'::regclass"


@pytest.fixture
def grown(migrated: Project) -> Project:
    """A cluster with plants in places, which the next release makes a reference model."""
    # A process that looks for blocks left in doubt would still be connected when the command ends.
    migrated.configure("garden", more='SHARDING = {"RECOVER_IN_PROCESS": False}')
    before = MODELS.replace("class Place(ReferenceModel)", "class Place(models.Model)")
    migrated.write("garden/models.py", before.replace("null=True)", "null=True, db_constraint=False)"))
    migrated.migration("garden", "0002_place", LOOSE, after=["0001_initial"])
    migrated.succeed("migrate_all", "-v", "0")
    migrated.succeed("shards", "init", "--json")
    assert migrated.run(STORE) == "3\n"
    migrated.write("garden/models.py", MODELS)
    migrated.migration("garden", "0003_firm", FIRM, after=["0002_place"])
    return migrated


def assert_copied(project: Project, names: list[str]) -> None:
    expected = project.ask("default", PLACES)
    assert [name for _, name in expected] == names
    for alias in SHARDS:
        assert project.ask(alias, PLACES) == expected
        assert project.ask(alias, KEYS) == [(1,)]
    project.succeed("migrate_all", "--check", "-v", "0")
    project.succeed("shards", "audit", "--json")


def test_a_global_model_becomes_a_reference_model(grown: Project) -> None:
    """Its rows are on a shard before a migration adds the constraint."""
    assert grown.succeed("makemigrations", "--check", "--dry-run") == "No changes detected\n"
    output = grown.succeed("migrate_all")
    for alias in SHARDS:
        assert f"{alias}: created garden_place, whose model is kept on shards now\n" in output
    assert_copied(grown, ["place 0", "place 1", "place 2"])
    assert grown.run(
        "from garden.models import *; print(Plant.objects.filter(owner_id=3, place__name='place 1').count())"
    )


def test_on_one_database(grown: Project) -> None:
    for alias in ("default", *SHARDS):
        grown.succeed("migrate", "--database", alias, "-v", "0")
    assert [grown.ask(alias, PLACES) for alias in SHARDS] == [grown.ask("default", PLACES)] * 3
    refused = grown.manage("shards", "status")
    assert refused[2] == "CommandError: Something is wrong with shard_a, shard_b, shard_c.\n"
    assert "It was not given the rows of garden_place. Run `manage.py migrate_all`." in " ".join(refused[1].split())
    grown.succeed("migrate_all", "-v", "0")
    grown.succeed("shards", "status", "--json")


@pytest.mark.parametrize("hints", ["", ', hints={"sharded": False}'], ids=["everywhere", "control database"])
def test_a_data_migration_of_reference_rows(grown: Project, hints: str) -> None:
    """Each database runs it by itself; in the end all have what the control database has."""
    grown.succeed("migrate_all", "-v", "0")
    # The id that a shard makes by itself is another one then.
    grown.ask("default", "SELECT nextval(pg_get_serial_sequence('garden_place', 'id'))")
    operation = f"migrations.RunPython(fill, migrations.RunPython.noop{hints})"
    grown.migration("garden", "0004_fill", operation, after=["0003_firm"], more=FILL)
    output = grown.succeed("migrate_all")
    assert [alias for alias in SHARDS if f"{alias}: rows of garden.Place: " in output] == list(SHARDS)
    assert_copied(grown, ["renamed by a migration", "place 1", "place 2", "from a migration"])
    assert "rows of" not in grown.succeed("migrate_all")


def test_a_shard_that_cannot_take_the_rows_is_named(grown: Project) -> None:
    grown.succeed("migrate_all", "-v", "0")
    grown.ask("shard_b", "ALTER TABLE garden_place ADD CHECK (name <> 'Eden')")
    grown.ask("default", "INSERT INTO garden_place (name) VALUES ('Eden')")
    code, _, errors = grown.manage("migrate_all")
    assert (code, errors) == (
        1,
        "CommandError: shard_b was migrated, but not given the rows of reference models: new row for relation "
        '"garden_place" violates check constraint "garden_place_name_check"\n'
        "Correct the cause and run `manage.py migrate_all` again: what is applied is not repeated.\n",
    )
    assert grown.ask("shard_a", PLACES) == grown.ask("shard_c", PLACES) == grown.ask("default", PLACES)


def test_drift_of_a_reference_table(grown: Project) -> None:
    grown.succeed("migrate_all", "-v", "0")
    grown.ask("shard_b", "ALTER TABLE garden_place ALTER name TYPE text")
    code, output, _ = grown.manage("migrate_all", "--check")
    assert code == 1
    assert "garden_place.name is text here and character varying(40) in the control database." in output


def test_tests_in_parallel(grown: Project) -> None:
    """Django copies the test database of default before there is a shard that could hold any rows."""
    grown.write("garden/tests.py", TESTS)
    code, _, errors = grown.manage("test", "--parallel", "2", "--noinput")
    assert code == 0, errors
    assert "Ran 2 tests" in errors

"""RunPython and RunSQL see the rows of the database they run on, once per database."""

from __future__ import annotations

import pytest

from tests.garden import SHARDS, garden, migrated, running_servers

__all__ = ["garden", "migrated", "running_servers"]

pytestmark = pytest.mark.db

DATABASES = ("default", *SHARDS)
#: Historical models without using(): each database has its own plants, and gets one more, whatever its key.
ROWS = """
def grow(apps, schema_editor):
    Plant = apps.get_model("garden", "Plant")
    alias = schema_editor.connection.alias
    names = sorted(Plant.objects.values_list("name", flat=True))
    assert names == [f"old of {alias}"], names
    plant = Plant.objects.get()
    plant.name = f"{plant.name}, counted {Plant.objects.count()}"
    plant.save()
    Plant.objects.filter(owner_id=1).update(name=f"{plant.name}, updated")
    for turn in range(2):
        Plant.objects.create(owner_id=20 + turn, name=f"new of {alias}")
    Plant.objects.bulk_create([Plant(owner_id=30, name=f"bulk of {alias}"), Plant(owner_id=31, name="weed")])
    Plant.objects.filter(name="weed").delete()
    Plant.objects.get_or_create(owner_id=40, defaults={"name": f"got of {alias}"})

def shrink(apps, schema_editor):
    Plant = apps.get_model("garden", "Plant")
    Plant.objects.exclude(name__startswith="old").delete()
"""
# The bucket of the key 1 is 2612, 0xa34.
PLANT = """
    INSERT INTO garden_plant (bucket, id, owner_id, name)
    VALUES (2612, '018bcfe5-6800-7a34-9a3c-5d1f0e6b7a28', 1, 'old of {}')
"""


@pytest.fixture
def planted(migrated):
    """The project, with a plant of its own on every database, and the cluster initialised."""
    migrated.run(
        """
        from sharding import conf, initialisation
        owners = [conf.current().shards[bucket % 3] for bucket in range(conf.current().buckets)]
        initialisation.initialise(owners)
        initialisation.identify_all()
        """
    )
    for alias in DATABASES:
        migrated.ask(alias, PLANT.format(alias))
    return migrated


def rows(project, alias):
    return project.ask(alias, "SELECT name, owner_id FROM garden_plant ORDER BY owner_id")


def grown(alias):
    new = f"new of {alias}"
    return [
        (f"old of {alias}, counted 1, updated", 1),
        (new, 20),
        (new, 21),
        (f"bulk of {alias}", 30),
        (f"got of {alias}", 40),
    ]


@pytest.mark.parametrize("command", ["migrate_all", "migrate"])
def test_run_python_sees_the_rows_of_its_database_once(planted, command):
    planted.migration("garden", "0002_grow", "migrations.RunPython(grow, shrink)", after=["0001_initial"], more=ROWS)
    if command == "migrate_all":
        planted.succeed("migrate_all")
    else:
        for alias in DATABASES:
            planted.succeed("migrate", "-v", "0", "--database", alias)
    for alias in DATABASES:
        assert rows(planted, alias) == grown(alias)
    planted.succeed("migrate_all", "garden", "0001")
    for alias in DATABASES:
        assert rows(planted, alias) == grown(alias)[:1]


def test_rows_that_a_migration_makes_have_their_bucket(planted):
    planted.migration("garden", "0002_grow", "migrations.RunPython(grow)", after=["0001_initial"], more=ROWS)
    planted.succeed("migrate_all")
    query = (
        "SELECT owner_id, bucket, (get_byte(uuid_send(id), 6) & 15) << 8 | get_byte(uuid_send(id), 7) FROM garden_plant"
    )
    expected = planted.run(
        """
        import sharding
        from garden.models import Plant
        print(*(sharding.bucket_of(Plant(owner_id=key)) for key in (20, 21, 30)))
        """
    )
    wanted = dict(zip((20, 21, 30), map(int, expected.split()), strict=True))
    for alias in DATABASES:
        found = {owner: (bucket, in_id) for owner, bucket, in_id in planted.ask(alias, query) if owner in wanted}
        assert found == {owner: (bucket, bucket) for owner, bucket in wanted.items()}


def test_run_sql_runs_once_on_each_database(planted):
    update = "UPDATE garden_plant SET owner_id = owner_id + 1"
    planted.migration("garden", "0002_sql", f"migrations.RunSQL({update!r})", after=["0001_initial"])
    planted.succeed("migrate_all")
    for alias in DATABASES:
        assert rows(planted, alias) == [(f"old of {alias}", 2)]


GLOBAL = """
def name(apps, schema_editor):
    apps.get_model("garden", "Place").objects.create(name="once")

def using(apps, schema_editor):
    Place = apps.get_model("garden", "Place")
    plant = apps.get_model("garden", "Plant").objects.get()
    plant.name = Place.objects.using("default").get().name
    plant.save()
"""


def test_run_python_over_a_global_model_does_not_reach_the_control_database_from_a_shard(planted):
    planted.migration("garden", "0002_name", "migrations.RunPython(name)", after=["0001_initial"], more=GLOBAL)
    code, _, errors = planted.manage("migrate_all")
    assert code == 1
    failed = 'shard_a was not migrated, garden.0002_name failed: relation "garden_place" does not exist\n'
    assert errors.startswith(f"CommandError: {failed}")
    assert planted.ask("default", "SELECT name FROM garden_place") == [("once",)]


def test_a_hint_keeps_run_python_from_the_shards_and_using_reaches_the_control_database(planted):
    operations = 'migrations.RunPython(name, hints={"sharded": False}), migrations.RunPython(using)'
    planted.migration("garden", "0002_name", operations, after=["0001_initial"], more=GLOBAL)
    planted.succeed("migrate_all")
    assert planted.ask("default", "SELECT name FROM garden_place") == [("once",)]
    for alias in DATABASES:
        assert rows(planted, alias) == [("once", 1)]


JOIN = """
def join(apps, schema_editor):
    Plant, Tag = (apps.get_model("garden", name) for name in ("Plant", "Tag"))
    plant = Plant.objects.get()
    Tag.objects.create(plant=plant)
    assert Tag.objects.filter(plant__name=plant.name).count() == 1
    assert Tag.objects.filter(plant__in=Plant.objects.filter(owner_id=1)).count() == 1
    assert Tag.objects.select_related("plant").get().plant == plant
    assert Plant.objects.filter(tag__isnull=False).count() == 1
"""


def test_the_tables_of_the_control_database_can_be_joined_while_it_is_migrated(planted):
    planted.migration(
        "garden",
        "0002_tag",
        """
        migrations.CreateModel("Tag", [("id", models.BigAutoField(primary_key=True)),
            ("plant", models.ForeignKey("garden.Plant", models.CASCADE, db_constraint=False))]),
        """,
        after=["0001_initial"],
    )
    operation = 'migrations.RunPython(join, hints={"sharded": False})'
    planted.migration("garden", "0003_join", operation, after=["0002_tag"], more=JOIN)
    planted.succeed("migrate_all", "-v", "0")


def test_a_migration_of_a_shard_needs_no_control_database(planted):
    planted.migration("garden", "0002_grow", "migrations.RunPython(grow)", after=["0001_initial"], more=ROWS)
    planted.take_down("default")
    planted.succeed("migrate", "--database", "shard_a", "-v", "0")
    assert rows(planted, "shard_a") == grown("shard_a")

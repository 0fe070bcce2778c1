"""RunPython and RunSQL see the rows of the database they run on, once per database."""

from __future__ import annotations

from itertools import count, islice

import pytest

from sharding import ids
from sharding.hashing import MAX_BUCKETS, bucket_of
from tests.garden import SHARDS, garden, migrated, running_servers

__all__ = ["garden", "migrated", "running_servers"]

pytestmark = [pytest.mark.db, pytest.mark.slow]

DATABASES = ("default", *SHARDS)
#: Owners of plants, of whose buckets each database has its share: the old one's, and those of plants to come.
KEYS = {
    alias: list(islice((key for key in count(1) if bucket_of(key, MAX_BUCKETS) % 4 == place), 6))
    for place, alias in enumerate(DATABASES)
}
#: Historical models without using(): each database has its own plants, and gets more.
ROWS = (
    f"""
KEYS = {KEYS}
"""
    + """
def grow(apps, schema_editor):
    Plant = apps.get_model("garden", "Plant")
    alias = schema_editor.connection.alias
    old, *new, bulk, weed, got = KEYS[alias]
    names = sorted(Plant.objects.values_list("name", flat=True))
    assert names == [f"old of {alias}"], names
    plant = Plant.objects.get()
    plant.name = f"{plant.name}, counted {Plant.objects.count()}"
    plant.save()
    Plant.objects.filter(owner_id=old).update(name=f"{plant.name}, updated")
    for key in new:
        Plant.objects.create(owner_id=key, name=f"new of {alias}")
    Plant.objects.bulk_create([Plant(owner_id=bulk, name=f"bulk of {alias}"), Plant(owner_id=weed, name="weed")])
    Plant.objects.filter(name="weed").delete()
    Plant.objects.get_or_create(owner_id=got, defaults={"name": f"got of {alias}"})

def shrink(apps, schema_editor):
    Plant = apps.get_model("garden", "Plant")
    Plant.objects.exclude(name__startswith="old").delete()
"""
)
PLANT = "INSERT INTO garden_plant (bucket, id, owner_id, name) VALUES ({}, '{}', {}, 'old of {}')"


@pytest.fixture
def planted(migrated):
    """The project, with a plant of its own on every database, and the cluster initialised."""
    migrated.run(
        """
        from sharding import conf, initialisation
        from sharding.fence import raising
        owners = [("default", *conf.current().shards)[bucket % 4] for bucket in range(conf.current().buckets)]
        initialisation.initialise(owners)
        initialisation.identify_all()
        for alias in ("default", *conf.current().shards):
            raising.raise_around(alias)
        """
    )
    for alias in DATABASES:
        bucket = bucket_of(KEYS[alias][0], MAX_BUCKETS)
        migrated.ask(alias, PLANT.format(bucket, ids.new_uuid(bucket), KEYS[alias][0], alias))
    return migrated


def rows(project, alias):
    return project.ask(alias, "SELECT name, owner_id FROM garden_plant ORDER BY owner_id")


def grown(alias):
    names = [f"old of {alias}, counted 1, updated", *[f"new of {alias}"] * 2, f"bulk of {alias}", f"got of {alias}"]
    old, *new, bulk, _, got = KEYS[alias]
    return list(zip(names, [old, *new, bulk, got], strict=True))


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
    for alias in DATABASES:
        _, first, second, bulk, *_ = KEYS[alias]
        expected = planted.run(
            f"""
            import sharding
            from garden.models import Plant
            print(*(sharding.bucket_of(Plant(owner_id=key)) for key in {(first, second, bulk)}))
            """
        )
        wanted = dict(zip((first, second, bulk), map(int, expected.split()), strict=True))
        found = {owner: (bucket, in_id) for owner, bucket, in_id in planted.ask(alias, query) if owner in wanted}
        assert found == {owner: (bucket, bucket) for owner, bucket in wanted.items()}


def test_a_migration_makes_no_rows_of_another_database(planted):
    planted.succeed("migrate_all", "-v", "0")
    key = KEYS["shard_b"][1]
    sow = f"""
def sow(apps, schema_editor):
    apps.get_model("garden", "Plant").objects.create(owner_id={key}, name="stray")
"""
    planted.migration("garden", "0002_sow", "migrations.RunPython(sow)", after=["0001_initial"], more=sow)
    code, _, complaint = planted.manage("migrate", "--database", "shard_a", "-v", "0")
    assert code == 1
    bucket = bucket_of(key, MAX_BUCKETS)
    assert f"The shard 'shard_a' knows nothing of the bucket {bucket}, and writes nothing of it." in complaint
    assert len(rows(planted, "shard_a")) == 1


def test_run_sql_runs_once_on_each_database(planted):
    update = "UPDATE garden_plant SET owner_id = owner_id + 1"
    planted.migration("garden", "0002_sql", f"migrations.RunSQL({update!r})", after=["0001_initial"])
    planted.succeed("migrate_all")
    for alias in DATABASES:
        assert rows(planted, alias) == [(f"old of {alias}", KEYS[alias][0] + 1)]


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
        assert rows(planted, alias) == [("once", KEYS[alias][0])]


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

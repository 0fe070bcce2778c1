"""Schema drift: every kind of difference in words, on real databases, and silence where schemas agree."""

from __future__ import annotations

import sqlite3

import pytest

from sharding.fields import ShardUUIDField
from sharding.migrating.schema import Column, Difference, Schema, Table, differences
from tests.garden import INITIAL, SHARDS, garden, migrated, running_servers
from tests.migrating_project import Project, sqlite_databases

__all__ = ["garden", "migrated", "running_servers"]

DRIFT = """
from sharding.migrating.drift import schema_drift
for difference in schema_drift():
    print(difference)
"""
THERE = "which the control database has."
NOT_THERE = "which the control database does not have."
#: What a person may do to shard_b by hand, and what the check says of it.
BY_HAND = {
    "ADD COLUMN weight integer": f" has a column weight, {NOT_THERE}",
    "DROP COLUMN leaf": f" has no column leaf, {THERE}",
    "ALTER name TYPE text": ".name is text here and character varying(40) in the control database.",
    "ALTER owner_id DROP NOT NULL": ".owner_id allows NULL here, and the control database forbids it.",
    "ALTER stem SET NOT NULL": ".stem forbids NULL here, and the control database allows it.",
    "ALTER root SET DEFAULT 5": ".root has the default 5 here and no default in the control database.",
    "ALTER bloom DROP DEFAULT": ".bloom has no default here and the default 3 in the control database.",
    'ALTER latin TYPE varchar(9) COLLATE "POSIX"': '.latin is COLLATE "POSIX" here and plain in the control database.',
    "DROP CONSTRAINT tall": f" lacks the constraint tall: CHECK ((stem > 0)), {THERE}",
    "ADD CHECK (root < 100)": f" has the constraint CHECK ((root < 100)), {NOT_THERE}",
    "DROP CONSTRAINT one_name": f" lacks the constraint one_name: UNIQUE (owner_id, name), {THERE}",
    "DROP CONSTRAINT {foreign_key}": " lacks the constraint FOREIGN KEY (parent_id) REFERENCES garden_plant(id) "
    f"DEFERRABLE INITIALLY DEFERRED, {THERE}",
}
FURTHER = {
    "DROP INDEX plant_bucket": f": garden_plant lacks the index plant_bucket: btree (bucket, id), {THERE}",
    "CREATE UNIQUE INDEX ON garden_plant (stem) WHERE stem > 9": ": garden_plant has the index UNIQUE btree (stem) "
    f"WHERE (stem > 9), {NOT_THERE}",
    "ALTER SEQUENCE sharding_id_sequence INCREMENT BY 1": ": the sequence sharding_id_sequence is bigint INCREMENT "
    "BY 1 here and bigint INCREMENT BY 64 in the control database.",
    "ALTER TABLE sharding_identity ALTER shard TYPE text": ": sharding_identity.shard is text here and character "
    "varying(63) in the control database.",
}
MODEL = """
from django.db import models
from django.db.models import Q
from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel

class Place(models.Model):
    name = models.CharField(max_length=40)

class Plant(ShardedModel):
    shard_key = "owner_id"
    id = ShardUUIDField(primary_key=True)
    owner_id = models.IntegerField()
    name = models.CharField(max_length=40)
    leaf = models.IntegerField(null=True)
    stem = models.IntegerField(null=True)
    root = models.IntegerField(null=True)
    bloom = models.IntegerField(db_default=3)
    latin = models.CharField(max_length=9, default="", db_index=True)
    parent = models.ForeignKey("self", models.CASCADE, null=True)
    place = models.ForeignKey(Place, models.CASCADE, null=True, db_constraint=False)

    class Meta:
        indexes = [models.Index(fields=["bucket", "id"], name="plant_bucket")]
        constraints = [
            models.CheckConstraint(condition=Q(stem__gt=0), name="tall"),
            models.UniqueConstraint(fields=["owner_id", "name"], name="one_name"),
        ]
"""
GROWN = """
    *(migrations.AddField("plant", name, models.IntegerField(null=True)) for name in ("leaf", "stem", "root")),
    migrations.AddField("plant", "bloom", models.IntegerField(db_default=3)),
    migrations.AddField("plant", "latin", models.CharField(max_length=9, default="", db_index=True)),
    migrations.AddField("plant", "parent", models.ForeignKey("garden.Plant", models.CASCADE, null=True)),
    migrations.AddField(
        "plant", "place", models.ForeignKey("garden.Place", models.CASCADE, null=True, db_constraint=False)),
    migrations.AddConstraint("plant", models.CheckConstraint(condition=models.Q(stem__gt=0), name="tall")),
    migrations.AddConstraint("plant", models.UniqueConstraint(fields=["owner_id", "name"], name="one_name")),
"""


@pytest.fixture
def grown(migrated):
    """The garden on PostgreSQL, with a table that has something of everything."""
    migrated.write("garden/models.py", MODEL)
    migrated.migration("garden", "0002_grown", GROWN, after=["0001_initial"])
    migrated.succeed("migrate_all", "-v", "0")
    return migrated


@pytest.mark.db
def test_every_kind_of_difference_is_said_in_words(grown):
    assert grown.run(DRIFT) == ""
    ((foreign_key,),) = grown.ask(
        "shard_b", "SELECT conname FROM pg_constraint WHERE contype = 'f' AND conrelid = 'garden_plant'::regclass"
    )
    for change in BY_HAND:
        grown.ask("shard_b", f"ALTER TABLE garden_plant {change.format(foreign_key=foreign_key)}")
    for statement in FURTHER:
        grown.ask("shard_b", statement)
    grown.ask("shard_c", "DROP TABLE garden_plant")
    grown.ask("shard_c", "DROP SEQUENCE sharding_id_sequence")
    found = grown.run(DRIFT).splitlines()
    expected = [f"shard_b: garden_plant{message}" for message in BY_HAND.values()]
    assert sorted(found[:-2]) == sorted([*expected, *(f"shard_b{message}" for message in FURTHER.values())])
    assert found[-2:] == [
        "shard_c has no table garden_plant, which the control database has.",
        "shard_c: the sequence sharding_id_sequence is missing here.",
    ]


@pytest.mark.db
def test_made_up_names_and_the_order_of_columns_are_no_difference(grown):
    grown.ask("shard_b", "ALTER TABLE garden_plant DROP COLUMN leaf")
    grown.ask("shard_b", "ALTER TABLE garden_plant ADD COLUMN leaf integer")
    grown.ask("shard_b", "ALTER TABLE garden_plant RENAME CONSTRAINT garden_plant_pkey TO other")
    ((index,),) = grown.ask(
        "shard_b", "SELECT indexname FROM pg_indexes WHERE indexdef LIKE '%(latin)' AND tablename = 'garden_plant'"
    )
    grown.ask("shard_b", f"ALTER INDEX {index} RENAME TO another")
    assert grown.run(DRIFT) == ""
    # Later migrations find this one by its name.
    grown.ask("shard_b", "ALTER INDEX plant_bucket RENAME TO third")
    assert grown.run(DRIFT).splitlines() == [
        "shard_b: garden_plant lacks the index plant_bucket: btree (bucket, id), which the control database has.",
        "shard_b: garden_plant has the index btree (bucket, id), which the control database does not have.",
    ]


@pytest.mark.db
def test_an_index_that_was_not_finished_is_a_difference(grown):
    # As CREATE INDEX CONCURRENTLY leaves it when the second row cannot be unique.
    for number in range(2):
        values = f"2612, '018bcfe5-6800-7a34-9a3c-5d1f0e6b7a2{number}', 1, '{number}', ''"
        grown.ask("shard_b", f"INSERT INTO garden_plant (bucket, id, owner_id, name, latin) VALUES ({values})")
    with pytest.raises(Exception, match="could not create unique index"):
        grown.ask("shard_b", "CREATE UNIQUE INDEX CONCURRENTLY once ON garden_plant (owner_id)")
    found = (
        "shard_b: garden_plant has the index INVALID UNIQUE btree (owner_id), which the control database does not have."
    )
    assert grown.run(DRIFT).splitlines() == [found]


@pytest.mark.db
def test_a_shard_that_does_not_answer_is_an_error(migrated):
    migrated.take_down("shard_b")
    output = migrated.run(
        """
        from sharding.errors import ShardsUnavailable
        from sharding.migrating.drift import schema_drift
        try:
            schema_drift()
        except ShardsUnavailable as error:
            print(error, list(error.failures))
        """
    )
    refused = 'connection failed: connection to server at "127.0.0.1", port 1 failed: Connection refused'
    message = f"Schemas cannot be compared, because databases did not answer: shard_b: {refused}"
    assert output == f"{message} ['shard_b']\n"


def test_differences_on_sqlite(tmp_path):
    project = Project(tmp_path, sqlite_databases(tmp_path, "default", *SHARDS))
    project.configure("garden")
    project.write("garden/models.py", MODEL)
    project.migration("garden", "0001_initial", INITIAL)
    project.migration("garden", "0002_grown", GROWN, after=["0001_initial"])
    project.succeed("migrate_all", "-v", "0")
    assert project.run(DRIFT) == ""
    bucket = ShardUUIDField().bucket_sql("sqlite", '"id"')
    table = (
        'CREATE TABLE "garden_plant" ("bucket" smallint NOT NULL, "id" char(32) NOT NULL PRIMARY KEY, '
        '"owner_id" bigint, "name" varchar(40) NOT NULL, "stem" integer NULL, "root" integer DEFAULT 5, '
        '"bloom" integer DEFAULT 3 NOT NULL, "latin" varchar(9) NOT NULL, "parent_id" char(32) NULL, '
        '"place_id" bigint NULL, "weight" integer, CONSTRAINT "tall" CHECK ("stem" > 1), '
        f'CHECK ({bucket} = "bucket"))'
    )
    with sqlite3.connect(tmp_path / "shard_b.sqlite3") as connection:
        connection.execute("DROP TABLE garden_plant")
        connection.execute(table)
        connection.execute('CREATE UNIQUE INDEX "once" ON "garden_plant" ("stem") WHERE "stem" > 9')
    connection.close()
    with sqlite3.connect(tmp_path / "shard_c.sqlite3") as connection:
        connection.execute("DROP TABLE sharding_id_sequence")
    connection.close()
    lacks, has = "shard_b: garden_plant lacks the", "shard_b: garden_plant has the"
    assert project.run(DRIFT).splitlines() == [
        f"shard_b: garden_plant has no column leaf, {THERE}",
        "shard_b: garden_plant.owner_id is bigint here and integer in the control database.",
        "shard_b: garden_plant.owner_id allows NULL here, and the control database forbids it.",
        "shard_b: garden_plant.root has the default 5 here and no default in the control database.",
        f"shard_b: garden_plant has a column weight, {NOT_THERE}",
        f'{lacks} index ("latin"), {THERE}',
        f'{lacks} index ("parent_id"), {THERE}',
        f'{lacks} index ("place_id"), {THERE}',
        f"{lacks} index UNIQUE (owner_id, name), {THERE}",
        f'{lacks} index plant_bucket: ("bucket", "id"), {THERE}',
        f'{has} index UNIQUE ("stem") WHERE "stem" > 9, {NOT_THERE}',
        f'{lacks} constraint CHECK ("stem" > 0), {THERE}',
        f"{lacks} constraint FOREIGN KEY (parent_id) REFERENCES garden_plant(id), {THERE}",
        f'{has} constraint CHECK ("stem" > 1), {NOT_THERE}',
        f"shard_c has no table sharding_id_sequence, {THERE}",
    ]


INTEGER = Column("integer", False, None)


def test_what_the_control_database_lacks_is_a_difference_too():
    here = Schema("postgresql", {"extra": Table({"a": INTEGER})}, {"numbers": "bigint INCREMENT BY 1"})
    assert list(map(str, differences("shard_a", here, Schema("postgresql", {})))) == [
        "shard_a has a table extra, which the control database does not have.",
        "shard_a: the sequence numbers is missing in the control database.",
    ]


def test_schemas_of_two_engines_are_not_compared():
    found = list(differences("shard_a", Schema("sqlite", {}), Schema("postgresql", {"gone": Table({"a": INTEGER})})))
    message = "shard_a runs on sqlite and the control database on postgresql."
    assert found == [Difference("shard_a", "", None, message)]


def test_two_equal_constraints_are_not_one():
    twice = Table({"a": INTEGER}, indexes=("btree (a)", "btree (a)"))
    once = Table({"a": INTEGER}, indexes=("btree (a)",))
    two, one = Schema("postgresql", {"t": twice}), Schema("postgresql", {"t": once})
    assert [str(each) for each in (*differences("shard_a", two, one), *differences("shard_a", one, two))] == [
        f"shard_a: t has the index btree (a), {NOT_THERE}",
        f"shard_a: t lacks the index btree (a), {THERE}",
    ]

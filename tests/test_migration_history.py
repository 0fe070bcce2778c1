"""Models that became sharded after they were made: on a new cluster, and on one that is in use."""

from __future__ import annotations

import json

import pytest

from tests.garden import running_servers
from tests.migrating_project import Project, postgresql_databases, sqlite_databases

__all__ = ["running_servers"]

pytestmark = [pytest.mark.db, pytest.mark.slow]

ALIASES = ("default", "shard_a", "shard_b")
GLOBAL = """
from django.db import models

class Author(models.Model):
    name = models.CharField(max_length=20)

class Book(models.Model):
    shelf = models.IntegerField()
    author = models.ForeignKey(Author, models.CASCADE)
"""
SHARDED = """
from django.db import models
from sharding.fields import ShardBigIntegerField
from sharding.models import ShardedModel

class Author(models.Model):
    name = models.CharField(max_length=20)

class Book(ShardedModel):
    shard_key = "shelf"
    id = ShardBigIntegerField(primary_key=True)
    shelf = models.IntegerField()
    author = models.ForeignKey(Author, models.CASCADE, db_constraint=False)
    pages = models.IntegerField(default=0)

    class Meta:
        indexes = [models.Index(fields=["bucket", "id"], name="book_bucket")]
        constraints = [models.CheckConstraint(condition=models.Q(pages__gte=0), name="pages_not_negative")]
"""
KEY = '("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"))'
MADE = f"""
    migrations.CreateModel("Author", [{KEY}, ("name", models.CharField(max_length=20))]),
    migrations.CreateModel("Book", [{KEY}, ("shelf", models.IntegerField()),
        ("author", models.ForeignKey("library.Author", models.CASCADE))]),
"""
# The foreign key keeps its constraint for a while, and SQLite copies the table again and again.
BECAME_SHARDED = """
    migrations.AddField("book", "bucket", BucketField(default=0), preserve_default=False),
    migrations.AlterField("book", "id", ShardBigIntegerField(primary_key=True, serialize=False)),
    migrations.AddField("book", "pages", models.IntegerField(default=0)),
    migrations.AddField("book", "editor", models.ForeignKey("library.Author", models.CASCADE, null=True)),
    migrations.AddField(
        "book", "patron", models.ForeignKey("library.Author", models.CASCADE, null=True, db_constraint=False)),
    migrations.AlterField("book", "patron", models.ForeignKey("library.Author", models.CASCADE, null=True)),
    migrations.AddConstraint(
        "book", models.CheckConstraint(condition=models.Q(pages__gte=0), name="pages_not_negative")),
    migrations.AddIndex("book", models.Index(fields=["bucket", "id"], name="book_bucket")),
"""
LOST_THE_CONSTRAINT = """
    migrations.AlterField("book", "author", models.ForeignKey("library.Author", models.CASCADE, db_constraint=False)),
    migrations.RemoveField("book", "editor"),
    migrations.RemoveField("book", "patron"),
"""
TABLES = """
import json
from django.db import connections
from sharding import routing
found = {}
for connection in connections.all():
    with routing.native(connection.alias), connection.cursor() as cursor:
        names = [name for name in connection.introspection.table_names(cursor) if name.startswith("library")]
        found[connection.alias] = {
            name: {
                "columns": sorted(each.name for each in connection.introspection.get_table_description(cursor, name)),
                "keys": sorted(connection.introspection.get_relations(cursor, name)),
            }
            for name in names
        }
print(json.dumps(found))
"""
BOOK = {"columns": ["author_id", "bucket", "id", "pages", "shelf"], "keys": []}
STORE = """
from django.db import connections
for alias in ("shard_a", "shard_b"):
    with connections[alias].cursor() as cursor:
        cursor.execute("INSERT INTO library_book (id, shelf, author_id, pages, bucket) VALUES (5, 1, 7, 0, 5)")
"""


@pytest.fixture(params=["postgresql", "sqlite"])
def project(request, tmp_path):
    if request.param == "sqlite":
        made = Project(tmp_path, sqlite_databases(tmp_path, *ALIASES))
        made.configure("library")
        yield made
        return
    request.getfixturevalue("running_servers")
    with postgresql_databases(*ALIASES) as addresses:
        made = Project(tmp_path, addresses)
        made.configure("library")
        yield made


def shard(project):
    """Let the code and its migrations have come to the sharded model."""
    project.write("library/models.py", SHARDED)
    project.migration("library", "0002_sharded", BECAME_SHARDED, after=["0001_made"])
    project.migration("library", "0003_unbound", LOST_THE_CONSTRAINT, after=["0002_sharded"])


def tables(project):
    return json.loads(project.run(TABLES))


def assert_sharded(project):
    found = tables(project)
    assert sorted(found["default"]) == ["library_author", "library_book"]
    for alias in ALIASES[1:]:
        assert found[alias] == {"library_book": BOOK}
    assert found["default"]["library_book"] == BOOK
    # A foreign key that led to no table would refuse this row.
    project.run(STORE)
    project.succeed("migrate_all", "--check", "-v", "0")


def test_a_model_that_became_sharded_is_made_on_a_new_cluster(project):
    project.migration("library", "0001_made", MADE)
    shard(project)
    assert project.succeed("makemigrations", "--check", "--dry-run") == "No changes detected\n"
    project.succeed("migrate_all", "-v", "0")
    assert_sharded(project)


def test_a_foreign_key_to_a_global_model_has_its_constraint_on_the_control_database_alone(project):
    project.migration("library", "0001_made", MADE)
    shard(project)
    project.succeed("migrate_all", "library", "0002", "-v", "0")
    found = tables(project)
    assert found["default"]["library_book"]["keys"] == ["author_id", "editor_id", "patron_id"]
    for alias in ALIASES[1:]:
        assert found[alias]["library_book"]["keys"] == []
        assert found[alias]["library_book"]["columns"] == sorted([*BOOK["columns"], "editor_id", "patron_id"])
    assert project.run("from sharding.migrating.drift import schema_drift; print(schema_drift())") == "[]\n"
    project.succeed("migrate_all", "library", "zero", "-v", "0")
    assert not any(tables(project).values())


@pytest.mark.parametrize("command", ["migrate_all", "migrate"])
def test_a_model_becomes_sharded_on_a_cluster_that_is_in_use(project, command):
    project.write("library/models.py", GLOBAL)
    project.migration("library", "0001_made", MADE)
    project.succeed("migrate_all", "-v", "0")
    assert tables(project)["shard_a"] == {}
    shard(project)
    if command == "migrate_all":
        output = project.succeed("migrate_all")
        for alias in ALIASES[1:]:
            assert f"{alias}: created library_book, whose model is kept on shards now\n" in output
    else:
        outputs = {alias: project.succeed("migrate", "--database", alias) for alias in ALIASES}
        created = "Created library_book, whose model is kept on shards now.\n"
        assert [created in outputs[alias] for alias in ALIASES] == [False, True, True]
    assert_sharded(project)


RENAMED = """
    migrations.RenameModel("Tome", "Codex"),
    migrations.AddField("codex", "bucket", BucketField(default=0), preserve_default=False),
    migrations.SeparateDatabaseAndState(
        database_operations=[migrations.AddField("scroll", "bucket", BucketField(default=0))]),
"""


def test_names_that_today_has_no_longer_stay_together(project):
    """Tome became Codex, which is sharded today; Scroll became sharded and was given up."""
    project.write(
        "library/models.py",
        """
        from django.db import models
        from sharding.fields import ShardBigIntegerField
        from sharding.models import ShardedModel

        class Codex(ShardedModel):
            shard_key = "shelf"
            id = ShardBigIntegerField(primary_key=True)
            shelf = models.IntegerField()
        """,
    )
    made = "".join(
        f'migrations.CreateModel("{name}", [{KEY}, ("shelf", models.IntegerField())]), '
        for name in ("Tome", "Scroll", "Leaflet")
    )
    project.migration("library", "0001_made", made)
    project.migration("library", "0002_sharded", RENAMED, after=["0001_made"])
    project.migration(
        "library",
        "0003_given_up",
        """
        migrations.AddField("leaflet", "pages", models.IntegerField(null=True)),
        migrations.AddField("scroll", "pages", models.IntegerField(null=True)),
        migrations.AlterField("codex", "id", ShardBigIntegerField(primary_key=True, serialize=False)),
        """,
        after=["0002_sharded"],
    )
    project.migration(
        "library",
        "0004_gone",
        'migrations.DeleteModel("Scroll"), migrations.DeleteModel("Leaflet")',
        after=["0003_given_up"],
    )
    project.succeed("migrate_all", "library", "0003", "-v", "0")
    found = tables(project)
    assert sorted(found["default"]) == ["library_codex", "library_leaflet", "library_scroll"]
    assert sorted(found["shard_a"]) == sorted(found["shard_b"]) == ["library_codex", "library_scroll"]
    project.succeed("migrate_all", "-v", "0")
    assert [sorted(tables(project)[alias]) for alias in ALIASES] == [["library_codex"]] * 3

"""A cluster whose shards have not all got a new column yet goes on serving what does not need it."""

from __future__ import annotations

import pytest

from tests.garden import HEIGHT, MODELS, garden, migrated, running_servers

__all__ = ["garden", "migrated", "running_servers"]

pytestmark = pytest.mark.db

INITIALISE = """
from sharding import conf, initialisation
shards = conf.current().shards
initialisation.initialise([shards[bucket % len(shards)] for bucket in range(conf.current().buckets)])
initialisation.identify_all()

import sharding
from garden.models import Plant
homes = {}
for key in range(100):
    homes.setdefault(sharding.shard_of(key), key)
for alias, key in homes.items():
    Plant.objects.create(owner_id=key, name=alias)
"""
#: With the column on the control database and shard_a: {what is done: what comes of it}.
USE = """
import sharding
from django.db import ProgrammingError, transaction
from sharding.errors import ShardNotMigrated
from garden.models import Plant

keys = {}
for key in range(100):
    keys.setdefault(sharding.shard_of(key), key)
for alias in ("shard_a", "shard_b"):
    plants = Plant.objects.filter(owner_id=keys[alias])
    trials = {
        "get": lambda: plants.get().height,
        "filter": lambda: list(plants.filter(height=None).values_list("name", flat=True)),
        "create": lambda: Plant.objects.create(owner_id=keys[alias], name="new", height=3).height,
        "update": lambda: plants.update(height=4),
        "values": lambda: list(plants.order_by("name").values_list("name", flat=True)),
        "only": lambda: sorted(plant.name for plant in plants.only("name")),
        "defer": lambda: sorted(plant.owner_id == keys[alias] for plant in plants.defer("height")),
        "count": lambda: plants.count(),
        "exists": lambda: plants.filter(name=alias).exists(),
        "update of another column": lambda: plants.filter(name=alias).update(name=f"{alias}!"),
        "save of another column": lambda: plants.only("name").first().save(update_fields=["name"]),
    }
    for what, trial in trials.items():
        try:
            print(alias, what, "->", trial())
        except ShardNotMigrated as error:
            assert isinstance(error, ProgrammingError)
            print(alias, what, "->", error.__cause__.sqlstate, error)
"""
#: 42703 is PostgreSQL's undefined_column.
MISSING = (
    "42703 The shard 'shard_b' has no column 'height' in the table 'garden_plant' of the sharded model garden.Plant: "
    "it is not migrated as this code expects. `manage.py migrate_all --check` shows what is pending where, and "
    "`manage.py migrate_all` applies it."
)
SERVED = [
    "shard_a get -> None",
    "shard_a filter -> ['shard_a']",
    "shard_a create -> 3",
    "shard_a update -> 2",
    "shard_a values -> ['new', 'shard_a']",
    "shard_a only -> ['new', 'shard_a']",
    "shard_a defer -> [True, True]",
    "shard_a count -> 2",
    "shard_a exists -> True",
    "shard_a update of another column -> 1",
    "shard_a save of another column -> None",
    f"shard_b get -> {MISSING}",
    f"shard_b filter -> {MISSING}",
    f"shard_b create -> {MISSING}",
    f"shard_b update -> {MISSING}",
    "shard_b values -> ['shard_b']",
    "shard_b only -> ['shard_b']",
    "shard_b defer -> [True]",
    "shard_b count -> 1",
    "shard_b exists -> True",
    "shard_b update of another column -> 1",
    "shard_b save of another column -> None",
]


def test_what_does_not_need_the_missing_column_goes_on(migrated):
    migrated.run(INITIALISE)
    migrated.write("garden/models.py", f"{MODELS}    height = models.IntegerField(null=True)\n")
    migrated.migration("garden", "0002_height", HEIGHT, after=["0001_initial"])
    migrated.succeed("migrate_all", "--database", "default", "--database", "shard_a", "-v", "0")
    assert migrated.run(USE).splitlines() == SERVED
    assert migrated.ask("shard_b", "SELECT name FROM garden_plant") == [("shard_b!",)]

"""
sharding.atomic() in a project that has no shards yet: a name of the cluster is all that two-phase commit needs.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import servers
from tests.garden import INITIAL, MODELS
from tests.migrating_project import Project, postgresql_databases

pytestmark = pytest.mark.db

BLOCK = """
import sharding
from django.db import connections
from garden.models import Place
from sharding.errors import CrossShardTransaction

try:
    with sharding.atomic("default", "analytics_db"):
        for alias in ("default", "analytics_db"):
            Place.objects.using(alias).create(name="meadow")
except CrossShardTransaction as error:
    print(error)
print(*(Place.objects.using(alias).count() for alias in ("default", "analytics_db")))
connections.close_all()
"""
REFUSED = (
    "This atomic block wrote to analytics_db, default, and was rolled back on all of them: without a cluster id, no "
    "transaction can be prepared. Run `manage.py shards init`; or write to one database per block; or set "
    "SHARDING['WITHOUT_TWO_PHASE_COMMIT'] to 'sequential', and they commit one after the other.\n"
)


def test_it_takes_the_id_of_a_cluster(tmp_path: Path) -> None:
    with servers.running(), postgresql_databases("default", "analytics_db") as addresses:
        addresses["analytics_db"]["ENGINE"] = "django.db.backends.postgresql"
        project = Project(tmp_path, addresses)
        project.configure("garden")
        project.write("garden/models.py", MODELS)
        project.migration("garden", "0001_initial", INITIAL)
        project.succeed("migrate_all", "-v", "0")
        assert project.run(BLOCK) == f"{REFUSED}0 0\n"
        project.configure("garden", more="SHARDING = {'WITHOUT_TWO_PHASE_COMMIT': 'sequential'}")
        assert project.run(BLOCK) == "1 1\n"
        project.configure("garden")
        project.succeed("shards", "init", "--json")
        assert project.run(BLOCK) == "2 2\n"

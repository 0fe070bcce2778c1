"""
A project whose processes are killed while a block commits one database after the other.

It has shards, the control database, and the books: a SQLite file beside them that cannot prepare transactions.
"""

from __future__ import annotations

import json
import shutil
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests import servers
from tests.garden import INITIAL, MODELS
from tests.migrating_project import Project, postgresql_databases, sqlite_databases

CLUSTER = ("default", "shard_a", "shard_b")
SETTINGS = """
SHARDING = {"WITHOUT_TWO_PHASE_COMMIT": "sequential", "RECOVER_IN_PROCESS": False}
DATABASE_ROUTERS = ["sharding.router.ShardRouter", "garden.undoing.Books"]
LOGGING_CONFIG = None
"""
UNDOING = """
import os, signal
from pathlib import Path

FOLDER = Path(__file__).parent

class Books:
    def allow_migrate(self, db, app_label, **hints):
        return False if db == "books" else None

def undo(what):
    from garden.models import Place

    Place.objects.count()
    with (FOLDER / "undone").open("a") as file:
        file.write(what + chr(10))
    if (FOLDER / f"kill_{what}").exists():
        (FOLDER / f"kill_{what}").unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    if (FOLDER / f"fail_{what}").exists():
        raise RuntimeError(f"{what} cannot be undone")
"""
BLOCK = """
import os, signal
from itertools import count

import sharding
from django.db import connections
from garden.models import Place, Plant
from garden.undoing import undo
from sharding.backends.participants import Participant
from sharding.backends.transactions import DoorTransactions
from sharding.commits import compensating, compensation_log, parts

def kill_before(owner, name, number):
    calls, function = count(1), getattr(owner, name)
    def killing(*args, **kwargs):
        if next(calls) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)
    setattr(owner, name, killing)

def owner_on(alias):
    return next(n for n in count() if sharding.shard_of(n, model=Plant) == alias)

kill_before({owner}, {name!r}, {number})
with sharding.atomic("books"):
    for alias in ("shard_a", "shard_b"):
        Plant.objects.create(owner_id=owner_on(alias), name=alias)
    with connections["books"].cursor() as cursor:
        cursor.execute("INSERT INTO book VALUES ('Herbs')")
    Place.objects.create(name="meadow")
    sharding.compensate(undo, "first")
    sharding.compensate(undo, "second")
"""
PARTS = {"shard_a": "garden_plant", "shard_b": "garden_plant", "books": "book", "default": "garden_place"}


class CrashingProject(Project):
    """The project, with a cluster that is initialised."""

    def prepare(self) -> None:
        self.configure("garden", more=SETTINGS)
        self.write("garden/models.py", MODELS)
        self.write("garden/undoing.py", UNDOING)
        self.migration("garden", "0001_initial", INITIAL)
        self.succeed("migrate_all", "-v", "0")
        self.succeed("shards", "init", "--json")
        with sqlite3.connect(self.addresses["books"]["NAME"]) as connection:
            connection.execute("CREATE TABLE book (title text)")

    def crash(self, owner: str, name: str, number: int = 1) -> None:
        """Run the block, in a process that is killed before the call with this number of a function."""
        process = self.start("shell", "-v", "0", "-c", BLOCK.format(owner=owner, name=name, number=number))
        _, errors = process.communicate(timeout=120)
        assert process.returncode == -signal.SIGKILL, errors

    def recover(self) -> dict[str, Any]:
        _, output, _ = self.manage("shards", "recover", "--json")
        found: dict[str, Any] = json.loads(output)["compensations"]
        return found

    def ask(self, alias: str, query: str) -> list[tuple[Any, ...]]:
        if "sqlite" not in self.addresses[alias]["ENGINE"]:
            return super().ask(alias, query)
        with closing(sqlite3.connect(self.addresses[alias]["NAME"])) as connection:
            return connection.execute(query).fetchall()

    def standing(self) -> list[str]:
        """Return the databases that have committed their part."""
        return [alias for alias, table in PARTS.items() if self.ask(alias, f"SELECT * FROM {table}")]

    def end_sessions(self) -> None:
        """End every session on the cluster, as a restart of its servers does."""
        for alias in CLUSTER if servers.engine == "postgresql" else ():
            self.ask(
                alias,
                "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()",
            )

    def left(self) -> list[str]:
        """Return the databases that hold a mark of a block, and those with a log."""
        marked = [alias for alias in PARTS if self._has_rows(alias, "sharding_part")]
        return marked + [alias for alias in PARTS if self._has_rows(alias, "sharding_compensation")]

    def _has_rows(self, alias: str, table: str) -> bool:
        catalogue = "sqlite_master" if "sqlite" in self.addresses[alias]["ENGINE"] else "pg_class"
        column = "name" if catalogue == "sqlite_master" else "relname"
        exists = self.ask(alias, f"SELECT 1 FROM {catalogue} WHERE {column} = '{table}'")
        return bool(exists and self.ask(alias, f"SELECT 1 FROM {table}"))

    def undone(self) -> list[str]:
        path = self.folder / "garden" / "undone"
        return path.read_text().split() if path.exists() else []

    def take_down(self, alias: str) -> None:
        super().take_down(alias)
        if servers.engine == "sqlite":
            self.addresses[alias]["NAME"] = "/nowhere/file.sqlite3"
            self.write("databases.json", json.dumps(self.addresses))

    def when(self, what: str) -> Path:
        """Return the file whose existence lets a compensation fail or die, such as ``fail_first``."""
        return self.folder / "garden" / what


@pytest.fixture(scope="session")
def crashable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CrashingProject]:
    """What ``crashing`` copies."""
    folder = tmp_path_factory.mktemp("crashable")
    with servers.running(), _cluster(folder) as addresses:
        made = CrashingProject(folder, {**addresses, "books": _books(folder)})
        made.prepare()
        yield made


@pytest.fixture
def crashing(crashable: CrashingProject, tmp_path: Path) -> Iterator[CrashingProject]:
    """The project, on databases of its own: on the test servers, or SQLite files."""
    with _cluster(tmp_path, like=crashable) as addresses:
        shutil.copytree(crashable.folder, tmp_path, dirs_exist_ok=True)
        made = CrashingProject(tmp_path, {**addresses, "books": _books(tmp_path)})
        made.write("databases.json", json.dumps(made.addresses))
        yield made


@contextmanager
def _cluster(folder: Path, like: CrashingProject | None = None) -> Iterator[dict[str, dict[str, Any]]]:
    if servers.engine == "sqlite":
        yield sqlite_databases(folder, *CLUSTER)
        return
    with postgresql_databases(*CLUSTER, like=None if like is None else like.addresses) as addresses:
        yield addresses


def _books(folder: Path) -> dict[str, Any]:
    return {"ENGINE": "django.db.backends.sqlite3", "NAME": str(folder / "books.sqlite3")}

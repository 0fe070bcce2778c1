"""
A project of its own in a temporary folder, with throw-away databases, driven through ``manage.py`` as a user would.

Its databases are made on the test servers, each alias on its own server; or they are SQLite files.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent
from typing import Any

import psycopg
from django.conf import settings
from psycopg import sql

from tests import manage_server, servers
from tests.dropping import drop_database

SETTINGS = """
import json
from pathlib import Path

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["sharding", *{apps!r}]
DATABASES = json.loads(Path(__file__).with_name("databases.json").read_text())
DATABASE_ROUTERS = ["sharding.router.ShardRouter"]
# Nothing here asks several shards, and most tests need no bucket map.
SILENCED_SYSTEM_CHECKS = ["sharding.W001", "sharding.W035"]
# A command that ends at once would end in the middle of a look at every database, with warnings as errors.
SHARDING = {{"RECOVER_IN_PROCESS": False}}
{more}
"""
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line

os.environ["DJANGO_SETTINGS_MODULE"] = "settings"
execute_from_command_line(sys.argv)
"""


class Project:
    """The project in ``folder``; ``addresses`` are its DATABASES."""

    def __init__(self, folder: Path, addresses: dict[str, dict[str, Any]]) -> None:
        self.folder = folder
        self.addresses = addresses
        self.write("manage.py", MANAGE)

    def configure(self, *apps: str, more: str = "") -> None:
        self.write("databases.json", json.dumps(self.addresses))
        self.write("settings.py", SETTINGS.format(apps=list(apps), more=dedent(more)))
        for app in apps:
            self.write(f"{app}/__init__.py", "")
            self.write(f"{app}/migrations/__init__.py", "")

    def write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(dedent(text))

    def migration(self, app: str, name: str, operations: str, *, after: Sequence[str] = (), more: str = "") -> None:
        """Write a migration that follows those of ``after``, "0001_initial" or "other.0001_initial"."""
        dependencies = [tuple(each.split(".")) if "." in each else (app, each) for each in after]
        self.write(
            f"{app}/migrations/{name}.py",
            "from django.db import migrations, models\nfrom sharding.fields import *\n"
            f"{dedent(more)}\n"
            "class Migration(migrations.Migration):\n"
            f"    dependencies = {dependencies!r}\n    operations = [{dedent(operations)}]\n"
            "    atomic = globals().get('ATOMIC', True)\n    replaces = globals().get('REPLACES', [])\n",
        )

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(servers.ROOT), "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "200"}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Return a process of its own, which runs beside the test."""
        return subprocess.Popen(
            [sys.executable, "-W", "error", "manage.py", *arguments],
            cwd=self.folder,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def manage(self, *arguments: str) -> tuple[int, str, str]:
        """Run ``manage.py`` and return its exit code, its output and its error output."""
        return manage_server.server.run(self.folder, arguments, self.environment)

    def succeed(self, *arguments: str) -> str:
        code, output, errors = self.manage(*arguments)
        assert (code, errors) == (0, ""), f"{output}\n{errors}"
        return output

    def run(self, code: str) -> str:
        """Run Python code inside the project and return what it prints."""
        return self.succeed("shell", "-v", "0", "-c", dedent(code))

    def connect(self, alias: str) -> psycopg.Connection[Any]:
        return _connect(self.addresses[alias], self.addresses[alias]["NAME"])

    def ask(self, alias: str, query: str) -> list[tuple[Any, ...]]:
        with self.connect(alias) as connection:
            cursor = connection.execute(query)
            return cursor.fetchall() if cursor.description else []

    def take_down(self, alias: str) -> None:
        """Let the alias name a port where nobody listens."""
        self.addresses[alias] = {**self.addresses[alias], "PORT": "1", "HOST": "127.0.0.1"}
        self.write("databases.json", json.dumps(self.addresses))


@contextmanager
def postgresql_databases(
    *aliases: str, like: Mapping[str, Mapping[str, Any]] | None = None
) -> Iterator[dict[str, dict[str, Any]]]:
    """
    Make a database for each alias: a shard's on that shard's server, others on the control server.

    They are copies of the databases at the addresses of ``like``, or empty.
    """
    run = uuid.uuid4().hex[:12]
    made: dict[str, dict[str, Any]] = {}
    try:
        for alias in aliases:
            server = _address(alias)
            name = f"migrating_{run}_{alias}"
            with _connect(server, server["NAME"]) as connection:
                template = like[alias]["NAME"] if like else "template1"
                _create(connection, name, template)
            made[alias] = {**server, "NAME": name}
        yield dict(made)
    finally:
        for alias, address in made.items():
            server = _address(alias)
            with _connect(server, server["NAME"]) as connection:
                drop_database(connection, address["NAME"])


def _create(connection: psycopg.Connection[Any], name: str, template: str) -> None:
    """Make a copy of a database. Sessions of it that were closed may last longer than the five seconds of a server."""
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    deadline = time.monotonic() + 60
    while True:
        try:
            connection.execute(statement)
            return
        except psycopg.errors.ObjectInUse:
            if time.monotonic() >= deadline:
                raise


def sqlite_databases(folder: Path, *aliases: str) -> dict[str, dict[str, Any]]:
    return {
        alias: {"ENGINE": "sharding.backends.sqlite3", "NAME": str(folder / f"{alias}.sqlite3")} for alias in aliases
    }


def _address(alias: str) -> dict[str, Any]:
    # settings.DATABASES carries the names of the test databases by now; the servers' own databases always exist.
    given = settings.DATABASES[alias if alias in settings.DATABASES else "default"]
    kept = {key: given[key] for key in ("USER", "PASSWORD", "HOST", "PORT")}
    return {**kept, "ENGINE": "sharding.backends.postgresql", "NAME": "postgres"}


def _connect(address: dict[str, Any], name: str) -> psycopg.Connection[Any]:
    return psycopg.connect(
        host=address["HOST"],
        port=address["PORT"],
        user=address["USER"],
        password=address["PASSWORD"],
        dbname=name,
        autocommit=True,
    )

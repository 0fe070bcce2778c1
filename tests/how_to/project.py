"""
A project in an empty folder, on real servers: what the reader of a page about moves has when the page begins.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql

from scripts.cluster import Cluster
from scripts.tutorial import SESSION, Shell
from tests.documents import ROOT

#: An address as pages have it: of the server shard_a, shard_b, …
_ADDRESS = re.compile(r"postgres://shop:\.\.\.@10\.0\.0\.1(\d)/shop")
MANAGE = """
import os, sys
from django.core.management import execute_from_command_line
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.how_to.settings"
execute_from_command_line(sys.argv)
"""


class Project:
    """A shell in a folder with a ``manage.py``, and the servers that it is about."""

    def __init__(self, servers: Cluster, folder: Path, database: str) -> None:
        self._servers, self._folder, self._database = servers, folder, database
        self._shell = Shell(folder)

    def declare(self, *shards: str) -> None:
        """Put the addresses of the control database and of some shards into the environment."""
        for name, variable in {"control": "DATABASE_URL", **{each: _variable(each) for each in shards}}.items():
            self.done(f"export {variable}={self.url(name)}")

    def begin(self, *shards: str, large: str = "", initialise: bool = True) -> None:
        """Initialise a cluster of these shards, and fill it; one tenant may be a large one."""
        (self._folder / "manage.py").write_text(MANAGE)
        self.done(f"export PYTHONPATH={ROOT} DJANGO_SETTINGS_MODULE=tests.how_to.settings")
        self.declare(*shards)
        self.done("python manage.py migrate_all")
        if initialise:
            self.done("python manage.py shards init")
        self.done(f"python -m tests.how_to.seed {large}")

    def read(self, file: str) -> str:
        return (self._folder / file).read_text(encoding="utf-8")

    def url(self, name: str) -> str:
        return self._servers.url(name, database=self._database)

    def run(self, command: str) -> tuple[int, str]:
        """Type a command; return its exit status, and what is printed."""
        return self._shell.run(_ADDRESS.sub(self._address, command))

    def _address(self, found: re.Match[str]) -> str:
        return self.url(f"shard_{'abcd'[int(found[1]) - 1]}")

    def type(self, session: str) -> str:
        """Type a session at ``manage.py shell``; return what differs from it."""
        script = self._folder / "session.py"
        script.write_text(SESSION.format(text=session, line=0))
        return self.done(f"python manage.py shell --verbosity 0 < {script}")

    def done(self, command: str) -> str:
        """Do what the page says nothing about."""
        status, output = self.run(command)
        assert status == 0, f"{command}\n{output}"
        return output

    def execute(self, name: str, statement: Any, values: Any = None) -> list[tuple[Any, ...]]:
        """Send a statement to a server, past the project."""
        with psycopg.connect(self.url(name), autocommit=True) as connection:
            cursor = connection.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def close(self) -> None:
        self._shell.close()


@contextmanager
def servers(folder: Path) -> Iterator[Cluster]:
    """Keep fast servers of four shards up."""
    cluster = Cluster(folder)
    try:
        cluster.up(shards=4, fast=True)
        yield cluster
    finally:
        cluster.destroy()


@contextmanager
def project(cluster: Cluster, folder: Path) -> Iterator[Project]:
    """Yield a project with databases of its own, that has no cluster yet."""
    database = f"shop_{uuid.uuid4().hex[:8]}"
    with ExitStack() as stack:
        for each in cluster.status():
            stack.callback(_drop, cluster, each.name, database)
            with psycopg.connect(cluster.url(each.name), autocommit=True) as connection:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(database)))
        made = Project(cluster, folder, database)
        stack.callback(made.close)
        yield made


def _drop(cluster: Cluster, name: str, database: str) -> None:
    with psycopg.connect(cluster.url(name), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(database)))


def _variable(shard: str) -> str:
    return f"SHARD_URL_{shard.removeprefix('shard_').upper()}"

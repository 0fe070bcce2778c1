"""
A MariaDB server beside the cluster, whose database is the alias "mariadb": for the tests marked ``mariadb``.
"""

from __future__ import annotations

import getpass
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

PATIENCE = 60.0


@pytest.fixture(scope="module", autouse=True)
def mariadb_database(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Start the server and add its database to DATABASES, before a test's class looks which ones there are."""
    # The driver is installed for these tests alone.
    import pymysql

    pymysql.install_as_MySQLdb()
    with _server(tmp_path_factory.mktemp("mariadb")) as socket, django_db_blocker.unblock():
        with pymysql.connect(unix_socket=socket, user="root") as raw:
            raw.cursor().execute("CREATE DATABASE events CHARACTER SET utf8mb4")
        connections.settings["mariadb"] = {
            **connections.settings["plain"],
            "ENGINE": "django.db.backends.mysql",
            "HOST": socket,
            "PORT": "",
            "USER": "root",
            "PASSWORD": "",
            "NAME": "events",
            "OPTIONS": {},
        }
        with connections["mariadb"].cursor() as cursor:
            cursor.execute("CREATE TABLE event (kind varchar(40) PRIMARY KEY) ENGINE=InnoDB")
        try:
            with django_db_blocker.block():
                yield
        finally:
            connections["mariadb"].close()
            del connections["mariadb"], connections.settings["mariadb"]


@contextmanager
def _server(folder: Path) -> Iterator[str]:
    data, socket = folder / "data", folder / "socket"
    options = ["--no-defaults", f"--datadir={data}", f"--user={getpass.getuser()}"]
    method = "--auth-root-authentication-method=normal"
    subprocess.run(["mariadb-install-db", *options, method, "--skip-test-db"], check=True, stdout=subprocess.DEVNULL)
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            ["mariadbd", *options, f"--socket={socket}", "--skip-networking", f"--pid-file={folder / 'pid'}"],
            stdout=log,
            stderr=log,
        )
    try:
        _await(socket, folder / "log")
        yield str(socket)
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _await(socket: Path, log: Path) -> None:
    deadline = time.monotonic() + PATIENCE
    while not socket.exists():
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)


def end_session() -> None:
    """Let the server end this thread's session."""
    connection: Any = connections["mariadb"]
    number = connection.connection.thread_id()
    other = connection.copy()
    with other.cursor() as cursor:
        cursor.execute(f"KILL CONNECTION {number}")
    other.close()

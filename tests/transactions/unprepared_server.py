"""
A PostgreSQL server as it comes: max_prepared_transactions is 0. Its database is the alias "ledger", and has Django's
ENGINE.
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from scripts.cluster import FAST, SETTINGS
from scripts.free_ports import HOST, free_port
from scripts.postgres_programs import Account, Programs, home_for
from scripts.postgres_server import Server
from tests import servers


@pytest.fixture(scope="module", autouse=True)
def ledger_database(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Start the server and add its database to DATABASES, before a test's class looks which ones there are."""
    with _server(tmp_path_factory.mktemp("ledger")) as address, django_db_blocker.unblock():
        connections.settings["ledger"] = {**connections.settings["plain"], **address}
        with connections["ledger"].cursor() as cursor:
            cursor.execute("CREATE TABLE line (id serial PRIMARY KEY, text text NOT NULL)")
        try:
            with django_db_blocker.block():
                yield
        finally:
            connections["ledger"].close()
            del connections["ledger"], connections.settings["ledger"]


@pytest.fixture
def ledger(transactional_db: None) -> str:
    """The alias of the database, which has no lines."""
    with connections["ledger"].cursor() as cursor:
        cursor.execute("TRUNCATE line")
    return "ledger"


def add_line(text: str) -> None:
    with connections["ledger"].cursor() as cursor:
        cursor.execute("INSERT INTO line (text) VALUES (%s)", [text])


def lines() -> list[str]:
    with connections["ledger"].cursor() as cursor:
        cursor.execute("SELECT text FROM line ORDER BY text")
        return [text for (text,) in cursor.fetchall()]


@contextmanager
def _server(folder: Path) -> Iterator[dict[str, Any]]:
    account, password = Account.of_caller(), secrets.token_hex(16)
    version, locale = servers.SERVERS[servers.server]
    # The programs that the servers of all tests use: a copy of them takes longer than all of this.
    programs = Programs.of_version(
        version, home=home_for(servers.folder_of(f"test-cluster-{servers.server}"), account), account=account
    )
    home = home_for(folder, account)
    server = Server("ledger", home / "ledger", free_port(set()), account.folder(home / "sockets"), programs)
    try:
        server.create(password=password, locale=locale, durable=False)
        server.start({**SETTINGS, **FAST, "max_prepared_transactions": "0"})
        yield {
            "HOST": HOST,
            "PORT": str(server.port),
            "USER": "postgres",
            "PASSWORD": password,
            "NAME": "postgres",
            "OPTIONS": {},
        }
    finally:
        server.stop()
        shutil.rmtree(home, ignore_errors=True)


def end_session(alias: str) -> None:
    """Let the server end this thread's session, as a failover would."""
    connection = connections[alias]
    pid = connection.connection.info.backend_pid
    other: Any = connection.copy()
    with other.cursor() as cursor:
        cursor.execute("SELECT pg_terminate_backend(%s, 60000)", [pid])
    other.close()
    assert pid != os.getpid()

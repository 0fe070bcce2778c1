"""
A database beside the cluster that cannot prepare transactions: a SQLite file with Django's own ENGINE.

A book must stand on a shelf that exists, which SQLite finds out at COMMIT. Shelf 1 exists.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import connections

import sharding
from sharding.commits import compensation_log, parts
from sharding.commits.sessions import session
from tests.layouts import CLUSTER
from tests.shop.models import Order, Region

TABLES = (
    "CREATE TABLE shelf (id integer PRIMARY KEY)",
    "INSERT INTO shelf VALUES (1)",
    "CREATE TABLE book (title text, shelf integer REFERENCES shelf (id) DEFERRABLE INITIALLY DEFERRED)",
)
NOWHERE = 99

#: What the compensations of a test were called with, and whether in a block of their own.
called: list[tuple[Any, bool]] = []
#: The arguments with which ``undo`` fails.
failing: set[Any] = set()


@pytest.fixture(scope="module", autouse=True)
def books_database(
    django_db_setup: None, django_db_blocker: Any, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[None]:
    """Add the database to DATABASES, before a test's class looks which ones there are."""
    with django_db_blocker.unblock(), database("books", tmp_path_factory.mktemp("books") / "books.sqlite3"):
        with connections["books"].cursor() as cursor:
            for statement in TABLES:
                cursor.execute(statement)
        with django_db_blocker.block():
            yield


@pytest.fixture
def books(transactional_db: None) -> str:
    """The alias of the database, which has no books."""
    with connections["books"].cursor() as cursor:
        cursor.execute("DELETE FROM book")
    return "books"


@pytest.fixture
def sequential(settings: Any, transactional_db: None) -> Iterator[None]:
    """SHARDING says to commit one database after the other."""
    settings.SHARDING = {**settings.SHARDING, "WITHOUT_TWO_PHASE_COMMIT": "sequential"}
    called.clear()
    failing.clear()
    parts.settled.clear()
    _forget_all()
    yield
    _forget_all()
    assert not any(connections[alias].in_atomic_block for alias in connections)


def _forget_all() -> None:
    # These tables are not managed, so that no test's flush empties them.
    for alias in (*CLUSTER, "books"):
        with session(alias) as cursor:
            parts.forget(cursor, parts.committed_blocks(cursor))
            for log in compensation_log.logs(cursor):
                compensation_log.delete(cursor, log.block)


@contextmanager
def database(alias: str, path: Path) -> Iterator[None]:
    """Add a SQLite file to DATABASES."""
    connections.settings[alias] = {
        **connections.settings["plain"],
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(path),
        "OPTIONS": {},
    }
    try:
        yield
    finally:
        connections[alias].close()
        del connections[alias], connections.settings[alias]


def add_book(title: str, shelf: int = 1) -> None:
    with connections["books"].cursor() as cursor:
        cursor.execute("INSERT INTO book VALUES (%s, %s)", [title, shelf])


def titles() -> list[str]:
    with connections["books"].cursor() as cursor:
        cursor.execute("SELECT title FROM book ORDER BY title")
        return [title for (title,) in cursor.fetchall()]


def regions(alias: str) -> list[str]:
    return sorted(Region.objects.using(alias).values_list("name", flat=True))


def add_region(name: str, alias: str = "reference") -> None:
    Region.objects.using(alias).create(name=name)


def undo(what: Any, *, more: Any = None) -> None:
    """Compensate, or fail if the test says so."""
    called.append((what if more is None else (what, more), connections["default"].in_atomic_block))
    if what in failing:
        raise RuntimeError(f"{what} cannot be undone")


def remove_orders(status: str, tenant: int) -> None:
    """Compensate for orders that were made."""
    called.append((status, connections["default"].in_atomic_block))
    Order.objects.filter(tenant_id=tenant, status=status).delete()


def undone() -> list[Any]:
    """Return what was compensated, in order; each in a block of its own."""
    assert all(in_block for _, in_block in called)
    return [what for what, _ in called]


def logged() -> list[tuple[str, str, int, str]]:
    """Return what is in the logs, in the order of registration: path, arguments, failures, the last error."""
    found: list[tuple[str, str, int, str]] = []
    for alias in compensation_log.places():
        with session(alias) as cursor:
            if parts.has_table(cursor.db, compensation_log.TABLE):
                cursor.execute(f"SELECT path, arguments, failures, error FROM {compensation_log.TABLE} ORDER BY id")
                found += cursor.fetchall()
    return found


def recover() -> dict[str, Any]:
    """Run `shards recover` and return what it did for compensations."""
    out = io.StringIO()
    with suppress(CommandError):
        call_command("shards", "recover", "--json", stdout=out)
    found: dict[str, Any] = json.loads(out.getvalue())["compensations"]
    return found


def marks() -> dict[str, int]:
    """Return how many marks of blocks each database holds, if any."""
    found: dict[str, int] = {}
    for alias in (*CLUSTER, "books"):
        with session(alias) as cursor:
            found[alias] = len(parts.committed_blocks(cursor))
    return {alias: number for alias, number in found.items() if number}


@contextmanager
def half(*, shelf: int = NOWHERE) -> Iterator[None]:
    """Open a block over the cluster and the books that commits its part of the cluster, and then no book."""
    with sharding.atomic("default", "books"):
        yield
        add_book("lost", shelf)

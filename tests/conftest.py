"""
What all tests share: servers that start with the first test that needs one, and markers for tests that need one.
"""

from __future__ import annotations

import gc
import os
import signal
import time
import unittest
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from django.db import connections
from django.test import TransactionTestCase
from hypothesis import HealthCheck, Phase, settings

from sharding import cluster_map
from sharding.errors import MapError
from tests import cleaning_up, leftovers, manage_server, servers

# What runs in the background of a shell ignores interruptions, and a program inherits that from its test.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How fast a machine is, and how lucky with its numbers, says nothing about the code.
CHANCE = [HealthCheck.too_slow, HealthCheck.filter_too_much]
settings.register_profile("patient", settings.default, deadline=None, suppress_health_check=CHANCE)
# Of code that was broken on purpose, nobody wants to know the smallest program that shows it.
settings.register_profile("unshrunk", settings.get_profile("patient"), phases=[Phase.explicit, Phase.generate])
settings.load_profile("unshrunk" if os.environ.get("SHARDKIT_UNSHRUNK") == "1" else "patient")

#: Seconds for which a test knows the bucket map at least, although one before may have read it for a short MAP_TTL.
KNOWN_FOR = 300.0

DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "django_db_reset_sequences", "live_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--long", action="store_true", help="run more random programs, with new numbers, and tests marked long"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a database before ``-m`` selects, and leave out what cannot run, or was not asked for."""
    for item in items:
        if _needs_database(item):
            item.add_marker(pytest.mark.db)
    long = config.getoption("--long")
    wanted = {"debian": servers.server == "debian15", "mariadb": servers.has_mariadb, "long": long}
    for marker, is_wanted in wanted.items():
        if not is_wanted:
            others = [item for item in items if item.get_closest_marker(marker)]
            config.hook.pytest_deselected(items=others)
            items[:] = [item for item in items if item not in others]
    if long:
        for item in items:
            item.add_marker(pytest.mark.timeout(0))


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Let no collection of garbage look at the tests and at Django again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(5000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def _manage_server() -> Iterator[None]:
    """Let the process that runs ``manage.py`` end before what was covered is put together."""
    yield
    manage_server.server.stop()


@pytest.fixture(scope="session")
def django_db_modify_db_settings(
    django_db_modify_db_settings_parallel_suffix: None, django_db_blocker: Any
) -> Iterator[None]:
    """Start the servers before the test databases are made, and give this run's databases names of their own."""
    with servers.running() as number:
        for connection in connections.all() if number else []:
            test = connection.settings_dict["TEST"]
            test["NAME"] = f"{test['NAME'] or 'test_' + connection.settings_dict['NAME']}_{number}"
        with django_db_blocker.unblock():
            leftovers.roll_back()
        with cleaning_up.quickly():
            yield
        connections.close_all()


@pytest.fixture(scope="session")
def django_db_setup(django_db_setup: None) -> Iterator[None]:
    """Drop no database to which somebody is connected: Django closes those connections only that it began with."""
    yield
    connections.close_all()


@pytest.fixture(autouse=True)
def _known_map(request: pytest.FixtureRequest) -> None:
    """Read the bucket map, which a test before may have forgotten, or read for a moment: no statement of this one."""
    marker = request.node.get_closest_marker("django_db")
    if marker is None or "default" not in [*marker.kwargs.get("databases", ["default"])]:
        return
    request.getfixturevalue("db")
    known = cluster_map.reading()
    with suppress(MapError):
        if known is None or known.until - time.monotonic() < KNOWN_FOR:
            cluster_map.refresh()


def _needs_database(item: pytest.Item) -> bool:
    cls = getattr(item, "cls", None)
    if cls is not None and issubclass(cls, unittest.TestCase):
        return issubclass(cls, TransactionTestCase)
    fixtures = DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("django_db") is not None

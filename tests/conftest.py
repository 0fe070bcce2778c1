"""
What all tests share: servers that start with the first test that needs one, and the markers ``db`` and ``debian``.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator

import pytest
from django.db import connections
from django.test import TransactionTestCase

from tests import servers

DATABASE_FIXTURES = {"db", "transactional_db", "django_db_setup", "django_db_reset_sequences", "live_server"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run many more random programs, with new random numbers")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what needs a database before ``-m`` selects, and leave Debian's tests to Debian's server."""
    for item in items:
        if _needs_database(item):
            item.add_marker(pytest.mark.db)
    if servers.server != "debian15":
        debian = [item for item in items if item.get_closest_marker("debian")]
        config.hook.pytest_deselected(items=debian)
        items[:] = [item for item in items if item not in debian]


@pytest.fixture(scope="session")
def django_db_modify_db_settings(django_db_modify_db_settings_parallel_suffix: None) -> Iterator[None]:
    """Start the servers before the test databases are made, and give this run's databases names of their own."""
    with servers.running() as number:
        for connection in connections.all() if number else []:
            test = connection.settings_dict["TEST"]
            test["NAME"] = f"{test['NAME'] or 'test_' + connection.settings_dict['NAME']}_{number}"
        yield
        connections.close_all()


def _needs_database(item: pytest.Item) -> bool:
    cls = getattr(item, "cls", None)
    if cls is not None and issubclass(cls, unittest.TestCase):
        return issubclass(cls, TransactionTestCase)
    fixtures = DATABASE_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    return bool(fixtures) or item.get_closest_marker("django_db") is not None

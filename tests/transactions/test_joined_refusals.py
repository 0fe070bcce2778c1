"""
Databases that cannot join a block, and projects whose `default` is no door.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError
from django.utils.connection import ConnectionDoesNotExist

import sharding
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.transactions.books import add_region, regions
from tests.transactions.conftest import Rows

pytestmark = pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY)


def test_a_database_in_a_block_of_its_own_cannot_join(rows: Rows) -> None:
    message = (
        "'reference' is inside an atomic block of its own already, which ends after sharding.atomic() and may still "
        "roll back. Open sharding.atomic() around it instead."
    )
    with transaction.atomic(using="reference"):
        with pytest.raises(TransactionManagementError, match=whole(message)), sharding.atomic("reference"):
            pass
        add_region("kept")
    assert not connections["default"].in_atomic_block
    assert regions("reference") == ["kept"]


def test_a_database_without_autocommit_cannot_join(rows: Rows) -> None:
    message = "Autocommit is off on 'reference', so its transaction does not end with sharding.atomic(). Turn it on."
    transaction.set_autocommit(False, using="reference")
    try:
        with pytest.raises(TransactionManagementError, match=whole(message)), sharding.atomic("reference"):
            pass
    finally:
        transaction.set_autocommit(True, using="reference")
    assert not connections["default"].in_atomic_block


def test_an_unknown_database(rows: Rows) -> None:
    unknown = whole("The connection 'analytics' doesn't exist.")
    with pytest.raises(ConnectionDoesNotExist, match=unknown), sharding.atomic("default", "analytics"):
        pass
    assert not connections["default"].in_atomic_block


@pytest.mark.parametrize(
    ("name", "call"),
    [("atomic", lambda: sharding.atomic().__enter__()), ("compensate", lambda: sharding.compensate(len))],
)
def test_without_the_door(name: str, call: Callable[[], None], rows: Rows) -> None:
    door, plain = connections["default"], connections["plain"]
    message = (
        f"sharding.{name}() needs DATABASES['default'] with the ENGINE 'sharding.backends.postgresql' or "
        f"'sharding.backends.sqlite3', not {plain.settings_dict['ENGINE']!r}."
    )
    connections["default"] = plain
    try:
        with pytest.raises(ImproperlyConfigured, match=whole(message)):
            call()
    finally:
        connections["default"] = door

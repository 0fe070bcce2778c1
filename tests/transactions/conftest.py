"""Rows of two tenants on two shards, committed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from threading import Thread
from typing import Any

import pytest
from django.db import connections

from sharding import routing
from tests import servers
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Customer, Line, Note, Order, OrderTag, Region, Tag

# SQLite has no sessions that could be ended, and prepares nothing.
POSTGRESQL_ONLY = [
    "test_decisions.py",
    "test_interruptions.py",
    "test_joined_cluster_of_one.py",
    "test_lost_commits.py",
    "test_lost_sessions.py",
    "test_prepared_checks.py",
    "test_readers.py",
    "test_recovery.py",
    "test_recovery_thread.py",
    "test_threads.py",
    "test_two_phases.py",
    "test_wire.py",
]
collect_ignore = [] if servers.engine == "postgresql" else POSTGRESQL_ONLY

MODELS = (Region, Customer, Order, Line, Tag, OrderTag, Note)
SHARDED = MODELS[1:-1]


@dataclass(frozen=True, slots=True)
class Rows:
    """Tenant ``a`` lives on shard_a and has rows; tenant ``b`` lives on shard_b."""

    a: int
    b: int
    customer: Customer
    order: Order
    tag: Tag


@pytest.fixture
def rows(transactional_db: None) -> Rows:
    a, b = tenant_on("shard_a"), tenant_on("shard_b")
    customer = Customer.objects.create(tenant_id=a, name="Ada")
    order = Order.objects.create(tenant_id=a, customer=customer)
    return Rows(a, b, customer, order, Tag.objects.create(tenant_id=a, label="gift"))


def stored() -> dict[str, list[Any]]:
    """Return every row of the shop with the database that holds it. Call it outside of blocks."""
    found: dict[str, list[Any]] = {}
    for alias in CLUSTER:
        with routing.native(alias):
            for model in MODELS if alias == "default" else SHARDED:
                rows = model.objects.using(alias).order_by("pk").values()
                found.setdefault(model.__name__, []).extend((alias, row) for row in rows)
    return found


def prepared() -> list[tuple[str, str]]:
    """Return the prepared transactions of every database of the cluster: (alias, gid)."""
    found: list[tuple[str, str]] = []
    for alias in CLUSTER if servers.engine == "postgresql" else []:
        with connections[alias].cursor() as cursor:
            cursor.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()")
            found.extend((alias, gid) for (gid,) in cursor.fetchall())
    return found


def elsewhere(function: Callable[[], Any]) -> Any:
    """Run a function in a thread with its own connections, and return or raise what it does."""
    results: list[Any] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(function())
        except BaseException as error:
            errors.append(error)
        finally:
            connections.close_all()

    thread = Thread(target=run)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]

"""Each shard says which one it is, and a statement for another one is not sent there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
from django.db import connections

from aggregator import fan_out
from sharding import cluster_map
from sharding.backends import identities
from sharding.control import ShardIdentity
from sharding.errors import MapConflict
from sharding.testing.statements import statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Customer, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)

USES: dict[str, Callable[[int], Any]] = {
    "read": lambda tenant: list(Order.objects.filter(tenant_id=tenant)),
    "insert": lambda tenant: Order.objects.create(tenant_id=tenant),
    "update": lambda tenant: Order.objects.filter(tenant_id=tenant).update(status="x"),
    "delete": lambda tenant: Order.objects.filter(tenant_id=tenant).delete(),
    "fan-out": lambda tenant: fan_out(Order.objects).count(),
    "by name": lambda tenant: Customer.objects.using("shard_a").count(),
}


@pytest.fixture(autouse=True)
def unknown() -> Iterator[None]:
    identities.forget()
    yield
    identities.forget()


def say(**values: Any) -> None:
    assert ShardIdentity.objects.using("shard_a").update(**values) == 1


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_shard_that_is_another_one(use: Callable[[int], Any]) -> None:
    """As with two URLs that were exchanged."""
    tenant = tenant_on("shard_a")
    say(shard="shard_b")
    uuid = cluster_map.uuid()
    message = whole(
        f"The database of 'shard_a' says that it is 'shard_b' of cluster {uuid}, not 'shard_a' of cluster {uuid}, so "
        f"that nothing was sent to it. Correct its URL; `manage.py shards status` shows them all."
    )
    with statements() as sent, pytest.raises(MapConflict, match=message):
        use(tenant)
    assert "shard_a" not in sent


def test_a_shard_of_another_cluster() -> None:
    tenant = tenant_on("shard_a")
    say(cluster=UUID(int=7))
    with pytest.raises(MapConflict, match="of cluster 00000000-0000-0000-0000-000000000007"):
        Order.objects.filter(tenant_id=tenant).exists()


def test_a_shard_that_says_nothing_yet() -> None:
    tenant = tenant_on("shard_a")
    ShardIdentity.objects.using("shard_a").all().delete()
    assert not Order.objects.filter(tenant_id=tenant).exists()


def test_it_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    said_by = identities._said_by

    def noted(connection: Any) -> Any:
        asked.append(connection.alias)
        return said_by(connection)

    monkeypatch.setattr(identities, "_said_by", noted)
    for _ in range(3):
        for alias in ("shard_a", "shard_b"):
            Order.objects.filter(tenant_id=tenant_on(alias)).exists()
    assert asked == ["shard_a", "shard_b"]


def test_a_broken_transaction_is_left_to_the_statement() -> None:
    connection: Any = connections["shard_a"]
    connection.needs_rollback = True
    try:
        identities.require(connection)
    finally:
        connection.needs_rollback = False
    assert "shard_a" not in identities._known

"""
Bad input: each kind has an error of its own, and leaves nothing written on any shard.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction
from django.db.models import Value
from django.db.utils import ConnectionDoesNotExist

from aggregator import fan_out, on_each_shard
from sharding import bucket_of, cluster_map
from sharding.control import Cluster
from sharding.errors import CrossShardQuery, MapMissing, ShardKeyMissing, ShardsUnavailable, UnhashableKey, UnknownShard
from sharding.testing.statements import assert_statements
from tests.downtime import down
from tests.fan_out import no_aggregator
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.messages import whole
from tests.shop.models import Device, Order, Reading
from tests.transactions.conftest import stored

pytestmark = pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=SHOP_ONLY)


@pytest.fixture(autouse=True)
def tenants() -> tuple[int, int]:
    """Two tenants with an order each, on two shards."""
    here, there = tenant_on("shard_a"), tenant_on("shard_b")
    Order.objects.create(tenant_id=here)
    Order.objects.create(tenant_id=there)
    return here, there


@contextmanager
def nothing_written() -> Iterator[None]:
    before = stored()
    yield
    assert stored() == before


@contextmanager
def refused(error: type[Exception], message: str) -> Iterator[None]:
    """The block raises the error before any shard is sent a statement."""
    with nothing_written(), assert_statements({}), pytest.raises(error, match=whole(message)):
        yield


# No key


NO_KEY: dict[str, Callable[[int], object]] = {
    "create": lambda tenant: Order.objects.create(status="x"),
    "save": lambda tenant: Order(status="x").save(),
    "bulk_create": lambda tenant: Order.objects.bulk_create([Order(tenant_id=tenant), Order()]),
    "bulk_create in batches": lambda tenant: Order.objects.bulk_create(
        [Order(tenant_id=tenant), Order()], batch_size=1
    ),
    "None": lambda tenant: Order.objects.create(tenant_id=None),
    "for_key": lambda tenant: Order.objects.for_key(None),
    "bucket_of": lambda tenant: bucket_of(None, model=Order),
}


@pytest.mark.parametrize("write", NO_KEY.values(), ids=NO_KEY)
def test_no_key(write: Callable[[int], object], tenants: tuple[int, int]) -> None:
    message = "This Order has no tenant_id, so its shard is unknown. Set tenant_id before saving."
    with refused(ShardKeyMissing, message):
        write(tenants[0])


NO_KEY_NAMED: dict[str, Callable[[], object]] = {
    "get": lambda: Order.objects.get(status="new"),
    "count": lambda: Order.objects.count(),
    "update": lambda: Order.objects.filter(status="new").update(status="x"),
    "delete": lambda: Order.objects.exclude(status="paid").delete(),
    "get_or_create": lambda: Order.objects.get_or_create(status="new"),
    "update_or_create": lambda: Order.objects.update_or_create(status="new", defaults={"quantity": 1}),
}


@pytest.mark.parametrize("ask", NO_KEY_NAMED.values(), ids=NO_KEY_NAMED)
def test_no_key_named(ask: Callable[[], object]) -> None:
    message = (
        "This Order query names no tenant_id, so its shard is unknown. "
        "Filter on tenant_id, or ask every shard with aggregator.fan_out()."
    )
    with refused(ShardKeyMissing, message):
        ask()


# Several keys, and nobody to merge


SEVERAL: dict[str, Callable[[tuple[int, int]], object]] = {
    "read": lambda tenants: list(Order.objects.filter(tenant_id__in=tenants)),
    "update": lambda tenants: Order.objects.filter(tenant_id__in=tenants).update(status="x"),
    "delete": lambda tenants: Order.objects.filter(tenant_id__in=tenants).delete(),
    "every shard": lambda tenants: fan_out(Order.objects.all()).update(status="x"),
}


@pytest.mark.parametrize("ask", SEVERAL.values(), ids=SEVERAL)
def test_several_shards_without_an_aggregator(
    ask: Callable[[tuple[int, int]], object], tenants: tuple[int, int]
) -> None:
    message = (
        "This shop.Order query names rows of several shard keys, which may live on several shards, and nothing is "
        "installed to merge their answers. Add 'aggregator' to INSTALLED_APPS."
    )
    with no_aggregator(), refused(CrossShardQuery, message):
        ask(tenants)


# A key of a wrong type


HINT = "Use an int, str, UUID, bytes, date, Decimal or aware datetime."
UNHASHABLE: dict[str, tuple[Any, str]] = {
    "bool": (True, f"True is a bool, which is no shard key: all rows would live in two buckets. {HINT}"),
    "float": (
        1.5,
        f"1.5 is a float, which is no shard key: a rounded number is not the number that was stored. {HINT}",
    ),
    "list": ([1], f"A value of type list is no shard key and has no bucket. {HINT}"),
    "dict": ({"a": 1}, f"A value of type dict is no shard key and has no bucket. {HINT}"),
}


@pytest.mark.parametrize(("key", "message"), UNHASHABLE.values(), ids=UNHASHABLE)
def test_key_of_a_wrong_type(key: Any, message: str, tenants: tuple[int, int]) -> None:
    writes: list[Callable[[], object]] = [
        lambda: Order.objects.create(tenant_id=key),
        lambda: Order.objects.bulk_create([Order(tenant_id=tenants[0]), Order(tenant_id=key)]),
        lambda: Order.objects.for_key(key),
        lambda: Device.objects.create(serial=key),
        lambda: bucket_of(key, model=Order),
    ]
    for write in writes:
        with refused(UnhashableKey, message):
            write()


def test_key_that_is_an_expression(tenants: tuple[int, int]) -> None:
    message = "shop.Order.tenant_id=Value(3) is an expression, and a shard key must be a plain value."
    with refused(UnhashableKey, message):
        Order.objects.bulk_create([Order(tenant_id=tenants[0]), Order(tenant_id=Value(3))])


@pytest.mark.parametrize("key", ["x", ""])
def test_text_for_a_number_is_djangos_to_refuse(key: str) -> None:
    with refused(ValueError, f"Field 'tenant_id' expected a number but got {key!r}."):
        Order.objects.create(tenant_id=key)
    with refused(ValueError, f"Field 'tenant_id' expected a number but got {key!r}."):
        Order.objects.for_key(key)


# Keys that look like none


def test_key_zero() -> None:
    order = Order.objects.create(tenant_id=0, status="zero")
    assert Order.objects.filter(tenant_id=0).get() == Order.objects.for_key("0").get() == order
    assert Order.objects.filter(tenant_id=0).update(status="x") == 1
    assert Order.objects.for_key(0).delete() == (1, {"shop.Order": 1})


def test_empty_text() -> None:
    device = Device.objects.create(serial="")
    reading = Reading.objects.create(device=device, value=1)
    assert Device.objects.for_key("").get() == device
    assert Reading.objects.filter(device="").get() == reading
    assert Reading.objects.filter(device=device).get() == reading


# Shards that are not there


def test_unknown_shard() -> None:
    message = "'shard_x' is no shard of this cluster. Its shards are default, shard_a, shard_b, shard_c."
    with refused(UnknownShard, message):
        on_each_shard(lambda connection: None, shards=["shard_a", "shard_x"])
    with refused(ConnectionDoesNotExist, "The connection 'shard_x' doesn't exist."):
        Order.objects.using("shard_x").create(tenant_id=3)


NOTE = "This was met on the shard 'shard_b'. `manage.py shards status` shows which databases answer."


@contextmanager
def refused_by_the_shard() -> Iterator[None]:
    message = (
        "The shard 'shard_b' did not answer (OperationalError). `manage.py shards status` shows which databases "
        "answer; .failures has the error. Queries of other shards go on."
    )
    with pytest.raises(OperationalError, match=whole(message)) as raised:
        yield
    error = raised.value
    assert isinstance(error, ShardsUnavailable)
    assert {alias: each.__notes__ for alias, each in error.failures.items()} == {"shard_b": [NOTE]}
    assert isinstance(error.__cause__, connections["shard_b"].Database.Error)
    assert str(pickle.loads(pickle.dumps(error))) == message


@contextmanager
def refused_by_the_aggregator() -> Iterator[None]:
    message = (
        "These shards did not answer: shard_b (OperationalError). A part of an answer is no answer, so there is none. "
        "Repeat the query when they are up; .failures has their errors."
    )
    with pytest.raises(ShardsUnavailable, match=whole(message)) as raised:
        yield
    assert {alias: error.__notes__ for alias, error in raised.value.failures.items()} == {"shard_b": [NOTE]}


Refusal = Callable[[], AbstractContextManager[None]]
DOWN: dict[str, tuple[Refusal, Callable[[tuple[int, int]], object]]] = {
    "create": (refused_by_the_shard, lambda tenants: Order.objects.create(tenant_id=tenants[1])),
    "bulk_create": (
        refused_by_the_shard,
        lambda tenants: Order.objects.bulk_create([Order(tenant_id=tenant) for tenant in tenants]),
    ),
    "several creates": (
        refused_by_the_shard,
        lambda tenants: [Order.objects.create(tenant_id=tenant) for tenant in tenants],
    ),
    "read": (refused_by_the_shard, lambda tenants: Order.objects.for_key(tenants[1]).count()),
    "update": (
        refused_by_the_aggregator,
        lambda tenants: Order.objects.filter(tenant_id__in=tenants).update(status="x"),
    ),
    "fan_out": (refused_by_the_aggregator, lambda tenants: fan_out(Order.objects.all()).update(status="x")),
    "delete": (refused_by_the_aggregator, lambda tenants: Order.objects.filter(tenant_id__in=tenants).delete()),
}


@pytest.mark.parametrize(("refusal", "write"), DOWN.values(), ids=DOWN)
def test_shard_down(refusal: Refusal, write: Callable[[tuple[int, int]], object], tenants: tuple[int, int]) -> None:
    with nothing_written():
        with down("shard_b"), refusal(), transaction.atomic(using="default"):
            write(tenants)
        # The others are not concerned.
        assert Order.objects.for_key(tenants[0]).count() == 1


@pytest.mark.parametrize("what", ["create", "bulk_create", "read"])
def test_shard_down_outside_a_block(what: str, tenants: tuple[int, int]) -> None:
    refusal, use = DOWN[what]
    with nothing_written(), down("shard_b"), refusal():
        use(tenants)


# No map


@contextmanager
def no_map() -> Iterator[None]:
    rows = list(Cluster.objects.all())
    Cluster.objects.all().delete()
    cluster_map.forget()
    try:
        yield
    finally:
        Cluster.objects.bulk_create(rows)


def test_map_missing(tenants: tuple[int, int]) -> None:
    message = (
        "The control database holds no bucket map, but there are shards: shard_a, shard_b, shard_c. "
        "Run `manage.py migrate_all` and then `manage.py shards init`."
    )
    with nothing_written(), no_map():
        with pytest.raises(MapMissing, match=whole(message)):
            Order.objects.create(tenant_id=tenants[0])
        with pytest.raises(MapMissing, match=whole(message)):
            Order.objects.for_key(tenants[0]).update(status="x")

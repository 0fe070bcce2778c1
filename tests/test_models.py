"""
Instances of sharded models: a stored row keeps its key, however it was read, copied, pickled or deferred.
"""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from django.apps.registry import Apps
from django.db import DatabaseError
from django.db.migrations.loader import MigrationLoader
from django.db.models import F

from sharding import bucket_of, registry, routing
from sharding.errors import BucketMismatch, NotSharded, ShardKeyChanged, UnhashableKey
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, neighbour_in_bucket, tenant_on
from tests.messages import whole
from tests.shop.models import Account, Entry, Order, PaidOrder, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def tenant() -> int:
    return tenant_on("shard_a")


@pytest.fixture
def order(tenant: int) -> Order:
    order: Order = Order.objects.create(tenant_id=tenant)
    return order


def changed(name: str, old: Any, new: Any, model: str = "Order") -> str:
    return (
        f"The {name} of this {model} was {old!r} and is now {new!r}, and a stored row's shard key never changes. "
        f"Create the row again under the new key, and delete the old one."
    )


#: Ways to hold the stored order when its key is changed.
HELD: dict[str, Callable[[Order], Order]] = {
    "created": lambda order: order,
    "read": lambda order: Order.objects.get(pk=order.pk),
    "refreshed": lambda order: _refreshed(order),
    "pickled": lambda order: pickle.loads(pickle.dumps(order)),
    "copied": lambda order: copy.copy(order),
    "copied deeply": lambda order: copy.deepcopy(Order.objects.get(pk=order.pk)),
    "proxy": lambda order: PaidOrder.objects.get(pk=order.pk),
    "from a shard": lambda order: Order.objects.using("shard_a").get(pk=order.pk),
    "prefetched": lambda order: Order.objects.filter(pk=order.pk).prefetch_related("lines")[0],
}

SAVES: dict[str, Callable[[Any], object]] = {
    "save": lambda order: order.save(),
    "save the key": lambda order: order.save(update_fields=["tenant_id"]),
    "save another field": lambda order: order.save(update_fields=["status"]),
    "save by UPDATE": lambda order: order.save(force_update=True),
    "save by INSERT": lambda order: order.save(force_insert=True),
    "save on its shard": lambda order: order.save(using="shard_a"),
}


def _refreshed(order: Order) -> Order:
    order.refresh_from_db()
    return order


@pytest.mark.parametrize("save", SAVES.values(), ids=SAVES)
@pytest.mark.parametrize("hold", HELD.values(), ids=HELD)
def test_changed_key(hold: Callable[[Order], Any], save: Callable[[Any], object], order: Order, tenant: int) -> None:
    held = hold(order)
    held.tenant_id = tenant + 1
    message = changed("tenant_id", tenant, tenant + 1, type(held).__name__)
    with assert_statements({}), pytest.raises(ShardKeyChanged, match=whole(message)) as caught:
        save(held)
    error = caught.value
    assert (error.model, error.field, error.old, error.new) == ("shop.Order", "tenant_id", tenant, tenant + 1)


@pytest.mark.parametrize("new", ["another of the bucket", None, 0])
def test_changed_to(new: object, order: Order, tenant: int) -> None:
    order.tenant_id = neighbour_in_bucket(tenant) if new == "another of the bucket" else new
    with pytest.raises(ShardKeyChanged, match=whole(changed("tenant_id", tenant, order.tenant_id))):
        order.save()


def test_changed_key_that_is_a_foreign_key() -> None:
    old, new = Account.objects.create(owner="Ada"), Account.objects.create(owner="Bo")
    entry = Entry.objects.create(account=old)
    entry.account = new
    with pytest.raises(ShardKeyChanged, match=whole(changed("account", old.pk, new.pk, "Entry"))):
        entry.save()


def test_changed_key_that_is_the_id() -> None:
    ada, bo = Account.objects.create(owner="Ada"), Account.objects.create(owner="Bo")
    old, ada.pk = ada.pk, bo.pk
    with pytest.raises(ShardKeyChanged, match=whole(changed("id", old, bo.pk, "Account"))):
        ada.save()
    bo.refresh_from_db()
    assert bo.owner == "Bo"


def test_the_same_key_in_another_form(order: Order, tenant: int) -> None:
    order.tenant_id = str(tenant)
    order.save()
    order.refresh_from_db()
    assert order.tenant_id == tenant


def test_key_that_is_put_back(order: Order, tenant: int) -> None:
    order.tenant_id = tenant + 1
    order.refresh_from_db(fields=["tenant_id"])
    order.save()
    assert order.tenant_id == tenant


def test_key_that_is_an_expression(order: Order) -> None:
    order.tenant_id = F("tenant_id")
    message = "shop.Order.tenant_id=F(tenant_id) is an expression, and a shard key must be a plain value."
    with pytest.raises(UnhashableKey, match=whole(message)):
        order.save()


def test_deferred_key_is_not_read(order: Order) -> None:
    deferred = Order.objects.only("status").get(pk=order.pk)
    deferred.status = "paid"
    with assert_statements({"shard_a": 1}), assert_no_fan_out():
        deferred.save()
    order.refresh_from_db()
    assert order.status == "paid"


def test_bulk_update_reads_no_deferred_field(order: Order, tenant: int) -> None:
    for names in (["status"], ["status", "tenant_id"]):
        several = list(Order.objects.filter(tenant_id=tenant).only(*names))
        several[0].status = names[-1][:10]
        with assert_statements({"shard_a": 1}):
            assert Order.objects.filter(tenant_id=tenant).bulk_update(several, ["status"]) == 1


def test_deferred_key_that_is_set_to_another_bucket(order: Order, tenant: int) -> None:
    deferred = Order.objects.only("status").get(pk=order.pk)
    deferred.tenant_id = tenant + 1
    message = (
        f"shop.Order.id={order.pk!r} was made for bucket {order.bucket}, but the row belongs to bucket "
        f"{bucket_of(tenant + 1, model=Order)} by its tenant_id. "
        f"Leave the id empty, and it is made for the row's bucket."
    )
    with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)):
        deferred.save()


def test_deferred_key_that_is_set_to_a_neighbour(order: Order, tenant: int) -> None:
    """No row has this id and this key."""
    deferred = Order.objects.only("status").get(pk=order.pk)
    deferred.tenant_id = neighbour_in_bucket(tenant)
    with pytest.raises(DatabaseError, match=whole("Save with update_fields did not affect any rows.")):
        deferred.save()


@pytest.mark.parametrize("adding", [True, False])
def test_copying_to_another_key(adding: bool, order: Order, tenant: int) -> None:
    twin = Order.objects.get(pk=order.pk)
    # Django's idiom, with and without the step that only some of its pages tell.
    twin.pk = None
    twin._state.adding = adding
    twin.tenant_id = tenant_on("shard_b")
    twin.save()
    assert twin.pk != order.pk
    assert twin.bucket == bucket_of(twin.tenant_id, model=Order)
    assert Order.objects.for_key(twin.tenant_id).get() == twin
    assert Order.objects.for_key(tenant).get() == order


def test_copied_row_keeps_its_new_key(order: Order, tenant: int) -> None:
    order.pk, order._state.adding, order.tenant_id = None, True, tenant + 1
    order.save()
    order.tenant_id = tenant
    with pytest.raises(ShardKeyChanged, match=whole(changed("tenant_id", tenant + 1, tenant))):
        order.save()


def test_bucket_cannot_be_set(order: Order) -> None:
    right = order.bucket
    order.bucket = right + 1
    order.save()
    assert order.bucket == right
    order.refresh_from_db()
    assert order.bucket == right


def test_pickled_querysets(order: Order, tenant: int) -> None:
    rows = Order.objects.filter(tenant_id=tenant)
    assert list(pickle.loads(pickle.dumps(rows))) == [order]
    again = Order.objects.all()
    again.query = pickle.loads(pickle.dumps(Order.objects.filter(tenant_id=tenant).query))
    with assert_statements({"shard_a": 1}):
        assert list(again) == [order]


@pytest.fixture(scope="module")
def historical() -> Apps:
    """The models as migrations see them: they have lost their base class."""
    loader = MigrationLoader(None)
    apps: Apps = loader.project_state().apps
    assert not issubclass(apps.get_model("shop", "Order"), Order)
    return apps


def test_historical_models_through_the_door(historical: Apps, tenant: int) -> None:
    old = historical.get_model("shop", "Order")
    with assert_statements({"shard_a": 2}):
        made = old.objects.create(tenant_id=tenant)
        many = old.objects.bulk_create([old(tenant_id=tenant)])
    for pk in (made.pk, many[0].pk):
        assert Order.objects.get(pk=pk).bucket == bucket_of(tenant, model=Order)


def test_historical_models_on_a_shard(historical: Apps, tenant: int) -> None:
    old = historical.get_model("shop", "Line")
    order = historical.get_model("shop", "Order")
    with routing.native("shard_a"):
        parent = order(tenant_id=tenant)
        parent.save(using="shard_a")
        old.objects.using("shard_a").create(tenant_id=tenant, order=parent, product="tea")
        assert old.objects.using("shard_a").get().bucket == bucket_of(tenant, model=Order)


def test_global_models_have_no_entry() -> None:
    message = "shop.Region is not sharded. Inherit from sharding.models.ShardedModel to shard it."
    with pytest.raises(NotSharded, match=whole(message)):
        registry.get(Region)

"""
Shards addressed by name: ``using()`` reads that shard alone, and a write that belongs elsewhere is refused.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Exists, Subquery

from sharding import routing, scope
from sharding.errors import BucketMismatch, GlobalJoin, ShardKeyChanged, WrongShard
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Account, Country, Customer, Line, Note, Order

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def tenant() -> int:
    return tenant_on("shard_a")


@pytest.fixture
def order(tenant: int) -> Order:
    order: Order = Order.objects.create(tenant_id=tenant)
    return order


def instance_refused(tenant: int) -> str:
    return (
        f"This Order with tenant_id={tenant} belongs to 'shard_a', not to 'shard_b'. "
        f"Leave out using='shard_b', and it is sent to its owner."
    )


STATEMENT = (
    "This write of {} is addressed to 'shard_b', but 'shard_a' owns its bucket. "
    "Leave out using('shard_b'), and it is sent to its owner."
)

Write = Callable[[Order], object]

INSTANCES: dict[str, Write] = {
    "create": lambda order: Order.objects.using("shard_b").create(tenant_id=order.tenant_id),
    "save": lambda order: order.save(using="shard_b"),
    "save by INSERT": lambda order: order.save(using="shard_b", force_insert=True),
    "save by UPDATE": lambda order: order.save(using="shard_b", force_update=True),
    "save of one field": lambda order: order.save(using="shard_b", update_fields=["status"]),
    "get_or_create": lambda order: Order.objects.using("shard_b").get_or_create(tenant_id=order.tenant_id),
}

STATEMENTS: dict[str, tuple[Write, str]] = {
    "bulk_create": (
        lambda order: Order.objects.using("shard_b").bulk_create([Order(tenant_id=order.tenant_id)]),
        "shop.Order",
    ),
    "bulk_update": (lambda order: Order.objects.using("shard_b").bulk_update([order], ["status"]), "shop.Order"),
    "update": (
        lambda order: Order.objects.using("shard_b").filter(tenant_id=order.tenant_id).update(status="x"),
        "shop.Order",
    ),
    "update by id": (
        lambda order: Order.objects.using("shard_b").filter(pk=order.pk).update(status="x"),
        "shop.Order",
    ),
    "update of rows of both": (
        lambda order: (
            Order.objects.using("shard_b")
            .filter(tenant_id__in=[order.tenant_id, tenant_on("shard_b")])
            .update(status="x")
        ),
        "shop.Order",
    ),
    "deletion of an instance": (lambda order: order.delete(using="shard_b"), "shop.Line"),
    "a raw deletion": (
        lambda order: Order.objects.using("shard_b").filter(pk=order.pk)._raw_delete("shard_b"),
        "shop.Order",
    ),
}


@pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=["sharding", "tests.shop"])
@pytest.mark.parametrize("write", INSTANCES.values(), ids=INSTANCES)
def test_instances_of_another_shard(write: Write, order: Order, tenant: int) -> None:
    with pytest.raises(WrongShard, match=whole(instance_refused(tenant))) as caught:
        write(order)
    assert (caught.value.model, caught.value.alias, caught.value.expected) == ("shop.Order", "shard_b", "shard_a")
    assert_untouched(order)


@pytest.mark.django_db(transaction=True, databases=CLUSTER, available_apps=["sharding", "tests.shop"])
@pytest.mark.parametrize(("write", "label"), STATEMENTS.values(), ids=STATEMENTS)
def test_statements_for_another_shard(write: Write, label: str, order: Order) -> None:
    with pytest.raises(WrongShard, match=whole(STATEMENT.format(label))):
        write(order)
    assert_untouched(order)


def assert_untouched(order: Order) -> None:
    for alias in CLUSTER:
        with routing.native(alias):
            found = list(Order.objects.values_list("pk", "status"))
            assert found == ([(order.pk, "new")] if alias == "shard_a" else [])


def test_deleting_rows_of_another_shard(order: Order, tenant: int) -> None:
    """There it would find none, and say that it deleted none."""
    for rows in (Order.objects.filter(tenant_id=tenant), Order.objects.filter(pk=order.pk)):
        with assert_statements({}), pytest.raises(WrongShard, match=whole(STATEMENT.format("shop.Order"))):
            rows.using("shard_b").delete()
    with scope(tenant, of=Order), pytest.raises(WrongShard, match=whole(STATEMENT.format("shop.Order"))):
        Order.objects.using("shard_b").delete()
    assert Order.objects.for_key(tenant).get() == order
    assert Line.objects.using("shard_b").filter(order=None).delete() == (0, {})


#: Subqueries over a global model, whose table no shard has.
GLOBAL: dict[str, Callable[[], object]] = {
    "a filter": lambda: list(Order.objects.using("shard_a").filter(pk__in=Note.objects.values("order"))),
    "an annotation": lambda: list(Order.objects.using("shard_a").annotate(x=Exists(Note.objects.all()))),
    "an update": lambda: Order.objects.using("shard_a").update(status=Subquery(Note.objects.values("text")[:1])),
    "a raw deletion": lambda: Order.objects.using("shard_a").filter(Exists(Note.objects.all()))._raw_delete("shard_a"),
    "a reference model": lambda: list(Country.objects.using("shard_a").filter(Exists(Note.objects.all()))),
}


@pytest.mark.parametrize("ask", GLOBAL.values(), ids=GLOBAL)
def test_subqueries_over_global_models(ask: Callable[[], object]) -> None:
    message = (
        "A query that 'shard_a' answers contains a subquery over shop.Note, and global rows live in the control "
        "database. Evaluate the inner query first: list(inner)."
    )
    with assert_statements({}), pytest.raises(GlobalJoin, match=whole(message)) as caught:
        ask()
    assert (caught.value.model, caught.value.tables) == ("shop.Note", ["shop_note"])


def test_unlimited_writes_reach_that_shard_alone(order: Order, tenant: int) -> None:
    away = Order.objects.create(tenant_id=tenant_on("shard_b"))
    with assert_statements({"shard_b": 1}):
        assert Order.objects.using("shard_b").update(status="x") == 1
    order.refresh_from_db()
    away.refresh_from_db()
    assert (order.status, away.status) == ("new", "x")


def test_reads_see_that_shard_alone(order: Order) -> None:
    with assert_statements({"shard_a": 1, "shard_b": 1}):
        assert Order.objects.using("shard_a").get() == order
        assert not Order.objects.using("shard_b").exists()


def test_the_key_cannot_be_updated_there(order: Order, tenant: int) -> None:
    message = (
        f"This update would set shop.Order.tenant_id to {tenant + 1}, and a stored row's shard key never changes. "
        f"Create the row again under the new key, and delete the old one."
    )
    with assert_statements({}), pytest.raises(ShardKeyChanged, match=whole(message)):
        Order.objects.using("shard_a").filter(tenant_id=tenant).update(tenant_id=tenant + 1)


def test_rows_of_other_buckets_cannot_be_named_there(order: Order, tenant: int) -> None:
    stranger = Customer.objects.create(tenant_id=tenant_on("shard_b"))
    message = (
        f"shop.Order.customer={stranger.pk!r} names a row of bucket {stranger.bucket}, but the row belongs to bucket "
        f"{order.bucket} by its tenant_id. Rows that refer to each other must have the same shard key."
    )
    with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)):
        Order.objects.using("shard_a").filter(tenant_id=tenant).update(customer=stranger)
    with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)):
        Order.objects.using("shard_a").create(tenant_id=tenant, customer=stranger)


#: How the caller may have come by an instance of a row of shard_a.
MET: dict[str, Callable[[int], Any]] = {
    "get": lambda tenant: Order.objects.using("shard_a").get(),
    "first": lambda tenant: Order.objects.using("shard_a").first(),
    "raw": lambda tenant: Order.objects.using("shard_a").raw("SELECT * FROM shop_order")[0],
    "create": lambda tenant: Order.objects.using("shard_a").create(tenant_id=tenant),
    "save": lambda tenant: _saved(Order(tenant_id=tenant)),
    "bulk_create": lambda tenant: Order.objects.using("shard_a").bulk_create([Order(tenant_id=tenant)])[0],
    "get_or_create": lambda tenant: Order.objects.using("shard_a").get_or_create(tenant_id=tenant)[0],
    "refresh_from_db": lambda tenant: _refreshed(Order.objects.for_key(tenant).get()),
    "select_related": lambda tenant: _line(tenant).order,
}


def _saved(order: Order) -> Order:
    order.save(using="shard_a")
    return order


def _refreshed(order: Order) -> Order:
    order.refresh_from_db(using="shard_a")
    return order


def _line(tenant: int) -> Any:
    Line.objects.create(order=Order.objects.for_key(tenant).get(), product="tea")
    return Line.objects.using("shard_a").select_related("order").get()


@pytest.mark.parametrize("meet", MET.values(), ids=MET)
def test_instances_of_a_shard_go_through_the_door(meet: Callable[[int], Any], order: Order, tenant: int) -> None:
    met = meet(tenant)
    assert met._state.db == "default"
    assert met.lines.db == "default"
    with transaction.atomic(using="default"):
        assert met.lines.create(product="tea")._state.db == "default"
        met.status = "paid"
        met.save()
        transaction.set_rollback(True, using="default")
    met.refresh_from_db()
    assert met.status == "new"


@pytest.mark.django_db(databases=[*CLUSTER, "reference"])
def test_instances_of_a_database_outside_of_the_cluster_stay_there(order: Order, tenant: int) -> None:
    elsewhere = Order.objects.using("reference")
    for made in (elsewhere.create(tenant_id=tenant), *elsewhere.bulk_create([Order(tenant_id=tenant)])):
        assert made._state.db == "reference"
        made.status = "sent"
        made.save()
        assert elsewhere.get(pk=made.pk).status == "sent"
    assert Order.objects.for_key(tenant).get() == order


def test_a_row_that_is_its_own_key_gets_its_place_from_the_shard() -> None:
    """An account without an id may live anywhere: also on the shard that is asked."""
    for _ in range(5):
        account = Account.objects.using("shard_b").create(owner="Ada")
        assert Account.objects.get(pk=account.pk) == account

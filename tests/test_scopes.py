"""
Scopes: the queries and the new rows of one family are limited to one shard key, until the block ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from asgiref.sync import async_to_sync
from django.db import DatabaseError, models, transaction
from django.db.models import Exists

from aggregator import fan_out
from sharding import registry, scope, scopes, shard_of
from sharding.errors import CannotMerge, NotSharded, ScopeConflict, ShardKeyMissing, UnhashableKey
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER
from tests.messages import whole
from tests.shop.models import Account, Customer, Device, Entry, Ledger, Line, Note, Order, PaidOrder, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def mine() -> Order:
    return Order.objects.create(tenant_id=3, status="mine", quantity=1)


@pytest.fixture
def other() -> Order:
    return Order.objects.create(tenant_id=4, status="other", quantity=2)


#: Questions of a scope of tenant 3, and their answers.
QUERIES: dict[str, tuple[Callable[[], object], object]] = {
    "all": (lambda: [each.status for each in Order.objects.all()], ["mine"]),
    "a filter": (lambda: Order.objects.filter(status="other").count(), 0),
    "the same key": (lambda: Order.objects.filter(tenant_id="3").count(), 1),
    "its key among others": (lambda: Order.objects.filter(tenant_id__in=[4, 3]).count(), 1),
    "exclude": (lambda: Order.objects.exclude(tenant_id=4).count(), 1),
    "or": (lambda: Order.objects.filter(models.Q(tenant_id=4) | models.Q(status="mine")).count(), 1),
    "aggregate": (lambda: Order.objects.aggregate(n=models.Sum("quantity")), {"n": 1}),
    "aggregate over a subquery": (lambda: Order.objects.distinct()[:5].aggregate(n=models.Sum("quantity")), {"n": 1}),
    "slices": (lambda: [each.status for each in Order.objects.order_by("pk")[:5]], ["mine"]),
    "groups": (lambda: list(Order.objects.values_list("status").annotate(n=models.Count("pk"))), [("mine", 1)]),
    "union": (
        lambda: list(Order.objects.values_list("status").union(Line.objects.values_list("product"))),
        [("mine",)],
    ),
    "a proxy": (lambda: PaidOrder.objects.count(), 1),
    "fan_out": (lambda: fan_out(Order.objects.all()).count(), 1),
    "another model of the family": (lambda: Customer.objects.count(), 0),
    "a joined key": (lambda: Order.objects.filter(customer__tenant_id=4).count(), 0),
    "update": (lambda: Order.objects.update(quantity=7), 1),
    "delete": (lambda: Order.objects.all().delete(), (1, {"shop.Order": 1})),
}


@pytest.mark.parametrize(("query", "answer"), QUERIES.values(), ids=QUERIES)
def test_queries_are_limited(query: Callable[[], object], answer: object, mine: Order, other: Order) -> None:
    with scope(3, of=Order), assert_no_fan_out():
        assert query() == answer
    other.refresh_from_db()
    assert other.quantity == 2


def test_composite_ids() -> None:
    for tenant in (3, 4):
        Ledger.objects.create(tenant_id=tenant, number=1)
    with scope(3, of=Order):
        assert Ledger.objects.get(number=1).pk == (3, 1)


NEW: dict[str, Callable[[], Any]] = {
    "create": lambda: Order.objects.create(),
    "save": lambda: _saved(Order()),
    "bulk_create": lambda: Order.objects.bulk_create([Order()])[0],
    "get_or_create": lambda: Order.objects.get_or_create(status="x")[0],
    "update_or_create": lambda: Order.objects.update_or_create(status="x")[0],
    "a key that is given": lambda: Order.objects.create(tenant_id="3"),
    "a composite id": lambda: Ledger.objects.create(number=1),
}


def _saved(instance: models.Model) -> models.Model:
    instance.save()
    return instance


@pytest.mark.parametrize("new", NEW.values(), ids=NEW)
def test_new_rows_get_the_key(new: Callable[[], Any]) -> None:
    with scope(3, of=Order):
        row = new()
    assert int(row.tenant_id) == 3
    assert type(row).objects.filter(tenant_id=3, pk=row.pk).exists()


def test_new_row_under_another_tenants_row(other: Order) -> None:
    message = "This Line names tenant_id=4 inside a scope of tenant_id=3. Leave the scope first."
    with scope(3, of=Order), pytest.raises(ScopeConflict, match=whole(message)):
        Line.objects.create(order=other, tenant_id=4, product="tea")


#: What names the key 4 inside a scope of 3.
CONFLICTS: dict[str, tuple[Callable[[Order], object], object]] = {
    "filter": (lambda other: Order.objects.filter(tenant_id=4).count(), 4),
    "for_key": (lambda other: list(Order.objects.for_key(4)), 4),
    "in": (lambda other: list(Order.objects.filter(tenant_id__in=[4, 5])), [4, 5]),
    "inside and": (lambda other: list(Order.objects.filter(models.Q(status="x") & models.Q(tenant_id=4))), 4),
    "aggregate": (lambda other: Order.objects.filter(tenant_id=4)[:5].aggregate(n=models.Count("pk")), 4),
    "a part of a union": (lambda other: list(Order.objects.all().union(Order.objects.filter(tenant_id=4))), 4),
    "update": (lambda other: Order.objects.filter(tenant_id=4).update(status="x"), 4),
    "delete": (lambda other: Order.objects.filter(tenant_id=4).delete(), 4),
    "create": (lambda other: Order.objects.create(tenant_id=4), 4),
    "bulk_create": (lambda other: Order.objects.bulk_create([Order(), Order(tenant_id=4)]), 4),
    "save": (lambda other: other.save(), 4),
    "deletion of an instance": (lambda other: other.delete(), 4),
    "fan_out": (lambda other: list(fan_out(Order.objects.filter(tenant_id=4))), 4),
}


@pytest.mark.parametrize(("use", "found"), CONFLICTS.values(), ids=CONFLICTS)
def test_another_key(use: Callable[[Order], object], found: object, other: Order) -> None:
    message = f"This Order names tenant_id={found!r} inside a scope of tenant_id=3. Leave the scope first."
    with (
        pytest.raises(ScopeConflict, match=whole(message)) as caught,
        scope(3, of=Order),
        transaction.atomic(using="default"),
    ):
        use(other)
    assert (caught.value.model, caught.value.field, caught.value.scope) == ("shop.Order", "tenant_id", 3)
    assert caught.value.found == found
    assert list(fan_out(Order.objects.all())) == [other]


#: What a scope does not limit by itself, and would read rows of every key.
OTHERS_ROWS: dict[str, Callable[[], object]] = {
    "filter": lambda: list(fan_out(Order.objects).filter(quantity__in=Order.objects.values("quantity"))),
    "annotation": lambda: list(fan_out(Order.objects).annotate(n=Exists(Line.objects.all()))),
    "count": lambda: fan_out(Order.objects).filter(Exists(Line.objects.all())).count(),
    "update": lambda: fan_out(Order.objects).filter(Exists(Line.objects.all())).update(status="x"),
    "delete": lambda: fan_out(Order.objects).filter(Exists(Line.objects.all())).delete(),
    "a join back": lambda: list(fan_out(Customer.objects).filter(country__customers__name="x")),
    "of another family": lambda: list(fan_out(Device.objects).filter(serial__in=Order.objects.values("status"))),
}


@pytest.mark.parametrize("use", OTHERS_ROWS.values(), ids=OTHERS_ROWS)
def test_rows_of_other_keys_are_not_gathered(use: Callable[[], object], mine: Order, other: Order) -> None:
    with scope(3, of=Order), assert_statements({}), pytest.raises(CannotMerge), transaction.atomic(using="default"):
        use()
    assert fan_out(Order.objects).filter(status="x").count() == 0


def test_subqueries_of_the_scopes_own_key(mine: Order, other: Order) -> None:
    inner = Order.objects.filter(tenant_id=3).values("quantity")
    with scope(3, of=Order):
        assert list(fan_out(Order.objects).filter(quantity__in=inner)) == [mine]


def test_another_tenants_row_is_not_found(other: Order) -> None:
    with scope(3, of=Order), pytest.raises(Order.DoesNotExist):
        other.refresh_from_db()
    with scope(3, of=Order):
        assert not Order.objects.filter(pk=other.pk).exists()


HIDDEN = (
    "Fetching the shop.Order rows to which several rows refer concerns rows of every tenant_id, inside a scope of "
    "tenant_id=3. Leave the scope first."
)


@pytest.fixture
def referring(mine: Order, other: Order) -> list[Any]:
    """Rows that refer to those of both tenants: of a sharded model, and of a global one."""
    lines = [Line.objects.create(order=order, product="tea") for order in (mine, other)]
    return [*lines, *(Note.objects.create(order=order, text="call") for order in (mine, other))]


@pytest.mark.parametrize("model", [Line, Note])
def test_what_a_scope_hides_is_not_remembered_as_missing(model: Any, referring: list[Any]) -> None:
    rows = [model.objects.get(pk=each.pk) for each in referring if isinstance(each, model)]
    with scope(3, of=Order):
        with pytest.raises(ScopeConflict, match=whole(HIDDEN)):
            models.prefetch_related_objects(rows, "order")
        assert rows[0].order.status == "mine"
    assert rows[1].order.status == "other"


@pytest.mark.skipif(not hasattr(models, "FETCH_PEERS"), reason="Django has FETCH_PEERS from 6.1 on")
@pytest.mark.parametrize("model", [Line, Note])
def test_what_a_scope_hides_of_the_peers(model: Any, referring: list[Any]) -> None:
    """Django 6.1 fetches for all rows of a query what one of them is asked for."""
    found = fan_out(Line.objects) if model is Line else Note.objects
    rows = list(found.fetch_mode(models.FETCH_PEERS).order_by("pk"))
    with scope(3, of=Order), pytest.raises(ScopeConflict, match=whole(HIDDEN)):
        str(rows[0].order)
    assert {row.order.status for row in rows} == {"mine", "other"}


def test_prefetching_what_the_scope_shows(mine: Order, other: Order) -> None:
    rows = [Note(order_id=mine.pk), Note(order_id=mine.pk)]
    with scope(3, of=Order), assert_statements({shard_of(mine): 1}):
        models.prefetch_related_objects(rows, "order")
    assert [row.order for row in rows] == [mine, mine]


def test_prefetching_what_is_nowhere(mine: Order) -> None:
    gone = Order.objects.create(tenant_id=3)
    rows = [Note(order_id=mine.pk), Note(order_id=gone.pk)]
    gone.delete()
    with scope(3, of=Order):
        models.prefetch_related_objects(rows, "order")
    assert [row.order for row in rows] == [mine, None]


def test_deferred_key(mine: Order, other: Order) -> None:
    own, foreign = (Order.objects.only("status").get(pk=order.pk) for order in (mine, other))
    with scope(3, of=Order):
        own.save()
        with pytest.raises(DatabaseError, match=whole("Save with update_fields did not affect any rows.")):
            foreign.save()
    assert "tenant_id" in foreign.get_deferred_fields()


def test_key_zero() -> None:
    Order.objects.create(tenant_id=0, status="zero")
    with scope(0, of=Order):
        assert Order.objects.get().status == "zero"
        with pytest.raises(ScopeConflict):
            Order.objects.create(tenant_id=3)


def test_nesting_and_families(mine: Order, other: Order) -> None:
    account = Account.objects.create(owner="Ada")
    with scope(3, of=Order), scope(str(account.pk), of=Entry):
        assert Order.objects.get() == mine
        assert Account.objects.get() == account
        assert Entry.objects.create().account == account
        with scope(4, of=Customer):
            assert Order.objects.get() == other
            assert Account.objects.count() == 1
        assert Order.objects.get() == mine
    with pytest.raises(ShardKeyMissing):
        Order.objects.count()


def test_ends_after_an_exception(mine: Order) -> None:
    with pytest.raises(KeyError), scope(3, of=Order):
        raise KeyError("view")
    with pytest.raises(ShardKeyMissing):
        Order.objects.count()


def test_other_rows_are_not_limited() -> None:
    Region.objects.create(name="north")
    Device.objects.create(serial="N-1")
    with scope(3, of=Order):
        assert Region.objects.count() == 1
        assert Device.objects.filter(serial="N-1").count() == 1
        with pytest.raises(ShardKeyMissing):
            Device.objects.count()


def test_tasks_have_scopes_of_their_own() -> None:
    async def key_in(tenant: int) -> int:
        with scope(tenant, of=Order):
            await asyncio.sleep(0)
            return int((await Order.objects.acreate(status="x")).tenant_id)

    async def all_keys() -> list[int]:
        return await asyncio.gather(*(key_in(tenant) for tenant in (3, 4, 5)))

    assert async_to_sync(all_keys)() == [3, 4, 5]


def test_a_new_thread_begins_without_a_scope() -> None:
    def key_of_a_new_row() -> Any:
        order = Order()
        scopes.complete(order, registry.get(Order))
        return order.tenant_id

    with scope(3, of=Order), ThreadPoolExecutor(1) as pool:
        assert key_of_a_new_row() == 3
        assert pool.submit(key_of_a_new_row).result() is None


WRONG: dict[str, tuple[Any, type[models.Model] | None, type[Exception], str]] = {
    "no key": (
        None,
        Order,
        ShardKeyMissing,
        "This Order has no tenant_id, so its shard is unknown. Set tenant_id before saving.",
    ),
    "several families": (
        3,
        None,
        ShardKeyMissing,
        "scope() needs of=…, a model of the family that the key belongs to, since this project has several: "
        "shop.Account, shop.Device, tenant_id.",
    ),
    "a global model": (
        3,
        Region,
        NotSharded,
        "shop.Region is not sharded. Inherit from sharding.models.ShardedModel to shard it.",
    ),
    "True": (
        True,
        Order,
        UnhashableKey,
        "True is a bool, which is no shard key: all rows would live in two buckets. "
        "Use an int, str, UUID, bytes, date, Decimal or aware datetime.",
    ),
}


@pytest.mark.parametrize(("key", "of", "error", "message"), WRONG.values(), ids=WRONG)
def test_wrong_scopes(key: Any, of: type[models.Model] | None, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=whole(message)), scope(key, of=of):
        raise AssertionError("entered")

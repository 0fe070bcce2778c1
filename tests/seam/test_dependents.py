"""
delete() of a global row treats the sharded rows that refer to it as on_delete says, on whichever shards they are.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import pytest
from django.db import models, transaction
from django.db.models import Manager, ProtectedError, RestrictedError
from django.db.models.deletion import Collector
from django.test.utils import isolate_apps

from aggregator import fan_out
from sharding import ownership, registry, scope
from sharding.dependents import DependentQuerySet
from sharding.errors import CrossShardQuery, ScopeConflict, ShardKeyMissing
from sharding.models import ShardedModel
from sharding.testing.statements import Statements, fan_outs, statements
from tests.blocks import undone
from tests.fan_out import no_aggregator
from tests.layouts import CLUSTER, Layout, tenant_on
from tests.messages import whole
from tests.seam.conftest import Shop
from tests.shop.models import Customer, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

FIELD: Any = Customer._meta.get_field("region")


@pytest.fixture
def south(shop: Shop) -> Region:
    return Region.objects.create(name="south")


@pytest.fixture
def zoe(layout: Layout, shop: Shop) -> Customer:
    """A customer of another tenant in the same region, on another shard if there is one."""
    tenant = tenant_on(layout.away or layout.home, 5)
    zoe: Customer = Customer.objects.create(tenant_id=tenant, name="Zoe", region=shop.region)
    return zoe


def writes(sent: Statements) -> dict[str, list[str]]:
    """Return what was written to customers, by alias."""
    found = {
        alias: [sql for sql in sent[alias] if sql.startswith(("UPDATE", "DELETE")) and '"shop_customer"' in sql]
        for alias in sent
    }
    return {alias: each for alias, each in found.items() if each}


def homes(layout: Layout) -> set[str]:
    return {layout.home, layout.away or layout.home}


@pytest.mark.parametrize(
    "on_delete", [models.SET_NULL, models.SET_DEFAULT, models.SET(None)], ids=lambda each: each.__name__
)
def test_set(on_delete: Any, layout: Layout, shop: Shop, zoe: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIELD.remote_field, "on_delete", on_delete)
    with statements() as sent:
        assert shop.region.delete() == (1, {"shop.Region": 1})
    assert set(writes(sent)) == homes(layout)
    for customer in (shop.customer, zoe):
        customer.refresh_from_db()
        assert customer.region is None


def test_set_null_writes_where_such_rows_are(layout: Layout, shop: Shop) -> None:
    """By key and id; the other shards are only asked."""
    with statements() as sent, fan_outs() as questions:
        shop.region.delete()
    (written,) = writes(sent)[layout.home]
    assert set(writes(sent)) == {layout.home}
    # Django 6 sends NULL as a parameter.
    assert written.replace("= NULL", "= %s") == (
        'UPDATE "shop_customer" SET "region_id" = %s '
        'WHERE ("shop_customer"."tenant_id" = %s AND "shop_customer"."id" IN (%s))'
    )
    assert {alias: ownership.as_asked(sent[alias][0], ())[0] for alias in set(layout.owners)} == dict.fromkeys(
        layout.owners,
        'SELECT "shop_customer"."id", "shop_customer"."tenant_id" FROM "shop_customer" '
        'WHERE "shop_customer"."region_id" IN (%s)',
    )
    assert [(each.buckets, each.probe) for each in questions] == [(None, True)]


def test_cascade(layout: Layout, shop: Shop, zoe: Customer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FIELD.remote_field, "on_delete", models.CASCADE)
    assert shop.region.delete() == (
        7,
        {"shop.Line": 1, "shop.OrderTag": 1, "shop.Note": 1, "shop.Order": 1, "shop.Customer": 2, "shop.Region": 1},
    )
    assert not fan_out(Customer.objects).exists()
    assert not fan_out(Order.objects).exists()


def test_cascade_to_rows_on_which_nothing_depends(
    layout: Layout, shop: Shop, zoe: Customer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FIELD.remote_field, "on_delete", models.CASCADE)
    monkeypatch.setattr(Order._meta.get_field("customer").remote_field, "on_delete", models.DO_NOTHING)
    Order.objects.filter(pk=shop.order.pk).update(customer=None)
    with statements() as sent:
        assert shop.region.delete() == (3, {"shop.Customer": 2, "shop.Region": 1})
    assert set(writes(sent)) == homes(layout)
    for sql in chain.from_iterable(writes(sent).values()):
        assert '"shop_customer"."tenant_id" = %s AND "shop_customer"."id" IN (%s)' in sql
    assert not fan_out(Customer.objects).exists()


@pytest.mark.parametrize(("on_delete", "error"), [(models.PROTECT, ProtectedError), (models.RESTRICT, RestrictedError)])
def test_refusals(
    on_delete: Any,
    error: type[Any],
    layout: Layout,
    shop: Shop,
    south: Region,
    zoe: Customer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(FIELD.remote_field, "on_delete", on_delete)
    with pytest.raises(error) as raised:
        shop.region.delete()
    found = raised.value.args[1]
    assert set(found) == {shop.customer, zoe}
    assert south.delete() == (1, {"shop.Region": 1})


def test_several_global_rows(layout: Layout, shop: Shop, south: Region, zoe: Customer) -> None:
    Customer.objects.filter(pk=zoe.pk).update(region=south)
    with statements() as sent:
        assert Region.objects.all().delete() == (2, {"shop.Region": 2})
    assert set(writes(sent)) == homes(layout)
    assert not fan_out(Customer.objects).filter(region__isnull=False).exists()


def test_a_rollback_undoes_it_everywhere(layout: Layout, shop: Shop, zoe: Customer) -> None:
    pk = shop.region.pk
    with undone():
        shop.region.delete()
    assert Region.objects.filter(pk=pk).exists()
    assert fan_out(Customer.objects).filter(region=pk).count() == 2


def test_inside_a_scope(layout: Layout, shop: Shop, zoe: Customer) -> None:
    """The rows of the other tenants would go on naming the row that is gone."""
    message = (
        f"Looking for dependent rows of shop.Customer concerns rows of every tenant_id, inside a scope of "
        f"tenant_id={shop.tenant}. Leave the scope first."
    )
    with (
        scope(shop.tenant, of=Customer),
        statements() as sent,
        pytest.raises(ScopeConflict, match=whole(message)) as raised,
        transaction.atomic(using="default"),
    ):
        shop.region.delete()
    assert sent.counts == {}
    assert (raised.value.model, raised.value.field, raised.value.scope, raised.value.found) == (
        "shop.Customer",
        "tenant_id",
        shop.tenant,
        None,
    )


def test_without_an_aggregator(layout: Layout, shop: Shop) -> None:
    with no_aggregator(), pytest.raises(CrossShardQuery), transaction.atomic(using="default"):
        shop.region.delete()
    assert Region.objects.filter(name="north").exists()


def test_the_application_still_says_whom_it_asks(layout: Layout, shop: Shop) -> None:
    with pytest.raises(ShardKeyMissing):
        list(Customer.objects.filter(region__in=[shop.region]))
    with pytest.raises(ShardKeyMissing):
        list(Customer._base_manager.filter(name="Ada"))
    with pytest.raises(ShardKeyMissing):
        list(Customer._base_manager.filter(region__in=[shop.region], name="Ada"))
    with pytest.raises(ShardKeyMissing):
        # As prefetch_related() over a one-to-one relation does.
        list(Customer._base_manager.db_manager(hints={"instance": shop.region}).filter(region__in=[shop.region]))


def test_what_the_admin_shows(layout: Layout, shop: Shop, zoe: Customer) -> None:
    """Its collector asks for the global rows in the same statement."""
    asked = Customer._base_manager.filter(region__in=[shop.region]).select_related("region")
    assert set(asked) == {shop.customer, zoe}
    asked = Order._base_manager.filter(customer__in=[shop.customer]).select_related("customer")
    assert [order.customer for order in asked] == [shop.customer]


def test_a_base_manager_of_the_applications_own(layout: Layout, db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    with isolate_apps("tests.shop"):

        class Ticket(ShardedModel):
            shard_key = "tenant_id"
            tenant_id = models.IntegerField(primary_key=True)
            everything = Manager()

            class Meta:
                app_label = "shop"
                base_manager_name = "everything"

    registry.reset()
    assert Ticket._base_manager.name == "everything"
    assert isinstance(Customer._base_manager.all(), DependentQuerySet)
    assert not isinstance(Customer.objects.all(), DependentQuerySet)
    assert Collector(using="default").related_objects(Customer, [FIELD], []).__class__ is DependentQuerySet

"""Which tables exist where, and which database Django asks, for every kind of model, hint and database."""

from __future__ import annotations

import pytest
from django.apps.registry import Apps
from django.db import models, router
from django.test import override_settings

from aggregator import fan_out
from sharding import routing
from sharding.fields import BucketField
from sharding.router import ShardRouter
from tests.layouts import tenant_on
from tests.shop.models import Country, Customer, Line, Note, Order, PaidOrder, Region


def historical(name, *, bucket):
    """Return a model as a migration renders it, of which today's code knows nothing."""
    meta = type("Meta", (), {"app_label": "shop", "apps": Apps()})
    body = {"__module__": "__fake__", "Meta": meta, "id": models.IntegerField(primary_key=True)}
    return type(name, (models.Model,), {**body, **({"bucket": BucketField()} if bucket else {})})


@pytest.mark.parametrize(
    ("label", "on_control", "on_shard", "elsewhere"),
    [
        ("shop.order", None, True, None),
        ("shop.paidorder", None, False, None),
        ("shop.region", None, False, None),
        ("shop.country", None, True, None),
        ("shop.country_neighbours", None, True, None),
        ("shop.note", None, False, None),
        ("auth.user", None, False, None),
        ("shop.unheard_of", None, False, None),
        ("sharding.cluster", True, False, False),
        ("sharding.bucketowner", True, False, False),
        ("sharding.shardnumber", True, False, False),
        ("sharding.referencecopies", True, False, False),
        ("sharding.shardidentity", True, True, False),
        ("sharding.idsequence", True, True, False),
    ],
)
def test_each_kind_of_model_has_its_databases(label, on_control, on_shard, elsewhere):
    app_label, name = label.split(".")
    found = [
        ShardRouter().allow_migrate(alias, app_label, model_name=name) for alias in ("default", "shard_b", "plain")
    ]
    assert found == [on_control, on_shard, elsewhere]


@pytest.mark.parametrize(
    ("app_label", "hints", "on_shard"),
    [
        ("shop", {}, True),
        ("auth", {}, False),
        ("sharding", {}, True),
        ("shop", {"sharded": False}, False),
        ("auth", {"sharded": True}, True),
        ("shop", {"model_name": "region"}, False),
        ("shop", {"model_name": "Order"}, True),
        ("shop", {"model_name": "region", "sharded": True}, True),
        ("shop", {"anything": "else"}, True),
    ],
    ids=str,
)
def test_run_python_and_run_sql_follow_their_app_and_hints(app_label, hints, on_shard):
    assert ShardRouter().allow_migrate("shard_a", app_label, **hints) is on_shard
    if app_label != "sharding":
        assert ShardRouter().allow_migrate("default", app_label, **hints) is None


@pytest.mark.parametrize(("bucket", "on_shard"), [(True, True), (False, False)])
def test_a_model_that_is_gone_was_sharded_if_it_had_a_bucket(bucket, on_shard):
    model = historical("Gone", bucket=bucket)
    assert router.allow_migrate_model("shard_a", model) is on_shard
    assert router.allow_migrate_model("default", model) is True


def test_a_model_of_today_is_what_today_says_whatever_its_history():
    assert router.allow_migrate_model("shard_a", historical("Region", bucket=True)) is False
    assert router.allow_migrate_model("shard_a", historical("Order", bucket=False)) is True


@override_settings(SHARDING={"SHARDS": []})
def test_without_shards_there_is_no_opinion():
    assert ShardRouter().allow_migrate("shard_a", "auth", model_name="user") is None
    assert ShardRouter().allow_migrate("shard_a", "shop", model_name="order") is None


@pytest.mark.parametrize("wrong", [{"BUCKETS": 0}, {"SHARDS": "shard_b", "MODE": "x"}])
def test_tables_have_their_databases_while_the_settings_are_wrong(wrong):
    """The system checks ask the router before they say what is wrong."""
    with override_settings(SHARDING=wrong):
        assert ShardRouter().allow_migrate("shard_b", "shop", model_name="order") is True
        assert ShardRouter().allow_migrate("shard_b", "shop", model_name="note") is False
        assert ShardRouter().allow_migrate("plain", "shop", model_name="note") is None


def kept_in(alias, row):
    row._state.db = alias
    return row


@pytest.mark.parametrize(
    ("model", "instance", "read", "write"),
    [
        (Order, None, "default", "default"),
        (PaidOrder, None, "default", "default"),
        (Customer, Region(), "default", "default"),
        # Where a row of another model was read says nothing.
        (Customer, kept_in("plain", Region()), "default", "default"),
        (Customer, kept_in("plain", Country()), "default", "default"),
        (Line, Order(), "default", "default"),
        (Line, kept_in("default", Order()), "default", "default"),
        (Line, kept_in("reference", Order()), "reference", "reference"),
        (Region, None, None, None),
        (Region, kept_in("default", Customer()), None, None),
        (Note, kept_in("plain", Region()), None, None),
        (Country, None, None, "default"),
        (Country, kept_in("default", Country()), None, "default"),
        (Country, kept_in("plain", Region()), None, "default"),
        (Country.neighbours.through, kept_in("default", Country()), None, "default"),
        # One that was read from a replica: the project's router knows its primary.
        (Country, kept_in("plain", Country()), None, None),
    ],
)
def test_databases_outside_of_migrations(model, instance, read, write):
    hints = {} if instance is None else {"instance": instance}
    assert ShardRouter().db_for_read(model, **hints) == read
    assert ShardRouter().db_for_write(model, **hints) == write


class Replicas:
    """A project's own router, as Django's documentation shows one."""

    def db_for_read(self, model, **hints):
        return "plain"

    db_for_write = db_for_read


@pytest.mark.django_db(databases="__all__")
@override_settings(DATABASE_ROUTERS=["sharding.router.ShardRouter", Replicas()])
def test_no_router_that_follows_sends_rows_past_the_door():
    assert Region.objects.all().db == Country.objects.all().db == "plain"
    order = Order.objects.create(tenant_id=tenant_on("shard_a"))
    assert Order.objects.using("shard_a").get() == order
    assert order.lines.create(product="tea").order_id == order.pk
    assert fan_out(Order.objects).get(lines__product="tea") == order
    assert Order.objects.filter(pk=order.pk).delete()[1] == {"shop.Line": 1, "shop.Order": 1}
    country = Country.objects.create(code="FI")
    assert Country.objects.using("shard_b").get() == Country.objects.using("default").get() == country


def test_a_migration_reads_and_writes_the_database_it_runs_on():
    with routing.native("shard_b"):
        assert (router.db_for_read(Order), router.db_for_write(Region)) == ("shard_b", "shard_b")
    with routing.native("plain"):
        assert (router.db_for_read(Region), router.db_for_write(Region)) == ("plain", "plain")
    with routing.native("default"):
        assert router.db_for_read(Order) == "default"


def test_a_row_of_another_database_stays_there_during_a_migration():
    region = Region(name="north")
    region._state.db = "plain"
    with routing.native("shard_b"):
        assert router.db_for_write(Region, instance=region) == "plain"
        assert router.db_for_write(Region, instance=Region()) == "shard_b"

"""Checks of many-to-many tables, inheritance, and foreign keys between servers."""

from __future__ import annotations

import pytest
from django.core.checks import Error
from django.db import models
from django.test import override_settings

from sharding.models import ShardedModel
from tests.model_checks.bases import Uuid
from tests.shop import models as shop


@pytest.mark.parametrize("side", ["sharded", "global", "itself"])
def test_a_many_to_many_table_made_by_django(found, side):
    class Label(models.Model):
        class Meta:
            app_label = "shop"

    class Invoice(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        if side == "sharded":
            labels = models.ManyToManyField(Label)
        if side == "itself":
            labels = models.ManyToManyField("self")

    if side == "global":
        models.ManyToManyField(Invoice).contribute_to_class(Label, "labels")
    holder = Label if side == "global" else Invoice
    assert found() == [
        Error(
            f"shop.{holder.__name__}.labels has a table that Django makes by itself, with an id that repeats on other "
            f"shards and no shard key, but shop.Invoice is sharded.",
            hint="Write the model of that table as a ShardedModel with the same shard key, and name it by through=.",
            obj=holder._meta.get_field("labels"),
            id="sharding.E028",
        )
    ]


def test_inheritance_over_two_tables(found):
    class Invoice(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()

    class CreditNote(Invoice):
        reason = models.CharField(max_length=9)

        class Meta:
            app_label = "shop"

    class Proxy(Invoice):
        class Meta:
            proxy = True
            app_label = "shop"

    assert found() == [
        Error(
            "shop.CreditNote is sharded and inherits from shop.Invoice, so each of its rows is spread over 2 tables.",
            hint="Make the parent abstract, or refer to it by a foreign key.",
            obj=CreditNote,
            id="sharding.E029",
        )
    ]


def test_constraints_between_servers(found):
    class Label(models.Model):
        order = models.ForeignKey(shop.Order, models.CASCADE)
        again = models.ForeignKey(shop.PaidOrder, models.CASCADE, db_constraint=False)

        class Meta:
            app_label = "shop"

    class Invoice(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        region = models.ForeignKey(shop.Region, models.CASCADE)
        customer = models.ForeignKey(shop.Customer, models.CASCADE)

    hint = "Set db_constraint=False; what on_delete says is done by Django all the same."
    assert found() == [
        Error(
            "shop.Label.order refers from a global to a sharded model, shop.Order, with a database constraint, and "
            "their rows live on different servers.",
            hint=hint,
            obj=Label._meta.get_field("order"),
            id="sharding.E030",
        ),
        Error(
            "shop.Invoice.region refers from a sharded to a global model, shop.Region, with a database constraint, and "
            "their rows live on different servers.",
            hint=hint,
            obj=Invoice._meta.get_field("region"),
            id="sharding.E030",
        ),
    ]


def test_models_without_a_table_of_their_own_are_not_checked(found):
    class Abstract(ShardedModel):
        class Meta:
            abstract = True
            app_label = "shop"

    class Swapped(ShardedModel):
        class Meta:
            app_label = "shop"
            swappable = "TEST_SWAPPED"

    class Unmanaged(models.Model):
        order = models.ForeignKey(shop.Order, models.CASCADE)

        class Meta:
            app_label = "shop"
            managed = False

    with override_settings(TEST_SWAPPED="shop.Order"):
        assert found() == []

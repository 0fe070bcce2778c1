"""Checks of reference models, and what the registry knows of them."""

from __future__ import annotations

import pytest
from django.core.checks import Error, Warning
from django.db import models
from django.test import override_settings

from sharding import reference_models
from sharding.fields import ShardUUIDField
from sharding.models import ReferenceModel, ShardedModel
from tests.model_checks.bases import Uuid
from tests.shop import models as shop


class Reference(ReferenceModel):
    class Meta:
        abstract = True
        app_label = "shop"


BY_DJANGO = "set db_constraint=False; what on_delete says is done by Django all the same."


def test_foreign_keys_of_reference_models(found):
    class Plan(Reference):
        region = models.ForeignKey(shop.Region, models.CASCADE)
        pilot = models.ForeignKey(shop.Customer, models.CASCADE, related_name="+")
        loose = models.ForeignKey(shop.Region, models.CASCADE, db_constraint=False, related_name="+")
        country = models.ForeignKey(shop.Country, models.CASCADE)
        parent = models.ForeignKey("self", models.CASCADE)

    assert found() == [
        Error(
            "shop.Plan.region refers from a reference to a global model, shop.Region, with a database constraint, and "
            "a shard has no such table.",
            hint=f"Make shop.Region a ReferenceModel as well, or {BY_DJANGO}",
            obj=Plan._meta.get_field("region"),
            id="sharding.E050",
        ),
        Error(
            "shop.Plan.pilot refers from a reference to a sharded model, shop.Customer, with a database constraint, "
            "and a shard has a part of its rows.",
            hint=BY_DJANGO[0].upper() + BY_DJANGO[1:],
            obj=Plan._meta.get_field("pilot"),
            id="sharding.E050",
        ),
    ]


def test_they_do_no_harm_before_there_are_shards(found):
    class Plan(Reference):
        region = models.ForeignKey(shop.Region, models.CASCADE)

    with override_settings(SHARDING={"SHARDS": []}):
        assert [(type(each), each.id) for each in found()] == [(Warning, "sharding.W050")]


def test_constraints_on_reference_models_are_kept(found):
    class Plan(Reference):
        pass

    class Invoice(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        plan = models.ForeignKey(Plan, models.PROTECT)

    class Label(models.Model):
        plan = models.ForeignKey(Plan, models.CASCADE)

        class Meta:
            app_label = "shop"

    assert found() == []


def test_a_model_that_is_both(found):
    class Both(ReferenceModel, ShardedModel):
        shard_key = "id"
        id = ShardUUIDField(primary_key=True)

        class Meta:
            app_label = "shop"

    assert found() == [
        Error(
            "shop.Both inherits from ShardedModel and from ReferenceModel.",
            hint="Choose: rows that each belong to one shard, or a small table that is whole on every shard.",
            obj=Both,
            id="sharding.E051",
        )
    ]


def test_parents(found):
    class Plan(Reference):
        pass

    class Special(Plan):
        class Meta:
            app_label = "shop"

    class Odd(shop.Region, ReferenceModel):
        class Meta:
            app_label = "shop"

    assert [reference_models.is_reference(model) for model in (Plan, Special, Odd)] == [True] * 3
    assert found() == [
        Error(
            "shop.Odd is a reference model and inherits from shop.Region, whose table the shards do not have.",
            hint="Make the parent a ReferenceModel or abstract, or refer to it by a foreign key.",
            obj=Odd,
            id="sharding.E051",
        )
    ]


def test_a_many_to_many_table_to_sharded_rows_is_none_of_ours(found):
    class Plan(Reference):
        customers = models.ManyToManyField(shop.Customer)

    assert [each.id for each in found()] == ["sharding.E028"]
    assert not reference_models.is_reference(Plan.customers.through)


def test_what_is_a_reference_model(found):
    class Plan(Reference):
        countries = models.ManyToManyField(shop.Country)
        regions = models.ManyToManyField(shop.Region)

    class Cheap(Plan):
        class Meta:
            proxy = True
            app_label = "shop"

    assert reference_models.is_reference(Cheap)
    assert reference_models.is_reference(Plan.countries.through)
    assert not reference_models.is_reference(Plan.regions.through)
    assert not reference_models.is_reference(shop.Region)
    assert reference_models.tables()["shop_plan_countries"] == "shop.Plan_countries"


def test_those_that_are_referred_to_come_first(found):
    class Leaf(Reference):
        branch = models.ForeignKey("shop.Branch", models.CASCADE)

    class Branch(Reference):
        twig = models.ForeignKey("shop.Twig", models.CASCADE, null=True)

    class Twig(Reference):
        branch = models.ForeignKey(Branch, models.CASCADE, null=True)

    labels = [model._meta.label for model in reference_models.models()]
    assert labels == [
        "shop.Currency",
        "shop.Country",
        "shop.Country_neighbours",
        # Two that refer to each other, in no order that would help.
        "shop.Branch",
        "shop.Leaf",
        "shop.Twig",
    ]


@pytest.mark.parametrize("label", ["shop.country", "shop.country_neighbours"])
def test_labels(label):
    assert reference_models.is_label(label)
    assert not reference_models.is_label(f"{label}s")

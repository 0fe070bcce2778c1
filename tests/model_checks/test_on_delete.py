"""Checks of what a database does by itself when a row is deleted, which Django knows from 6.1 on."""

from __future__ import annotations

import pytest
from django.core.checks import Error
from django.db import models

from sharding.models import LookupIndex, ReferenceModel
from tests.model_checks.bases import Uuid
from tests.shop import models as shop

pytestmark = pytest.mark.skipif(not hasattr(models, "DB_CASCADE"), reason="Django has DB_CASCADE from 6.1 on")


def test_rows_whose_lookup_entries_would_stay(found):
    class Ticket(Uuid):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["code"], unique=True)]
        tenant_id = models.IntegerField()
        code = models.CharField(max_length=9)
        order = models.ForeignKey(shop.Order, models.DB_CASCADE)
        country = models.ForeignKey(shop.Country, models.DB_SET_NULL, null=True)
        tag = models.ForeignKey(shop.Tag, models.CASCADE)
        line = models.ForeignKey(shop.Line, models.DB_CASCADE, db_constraint=False)

    assert found() == [
        Error(
            "shop.Ticket.order has on_delete=DB_CASCADE, so that a shard deletes rows of shop.Ticket whose lookup "
            "entries stay in the control database.",
            hint="Set on_delete=CASCADE, which Django does.",
            obj=Ticket._meta.get_field("order"),
            id="sharding.E063",
        )
    ]


def test_without_lookups_the_database_may_delete(found):
    class Ticket(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        order = models.ForeignKey(shop.Order, models.DB_CASCADE)
        country = models.ForeignKey(shop.Country, models.DB_SET_DEFAULT, db_default=1)

    assert found() == []


def test_a_default_that_is_a_row_of_one_bucket(found):
    class Ticket(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        tag = models.ForeignKey(shop.Tag, models.DB_SET_DEFAULT, db_default=1)

    assert found() == [
        Error(
            "shop.Ticket.tag has on_delete=DB_SET_DEFAULT, so that a shard lets rows of every bucket refer to a row "
            "of one.",
            hint="Set on_delete=SET_DEFAULT, which Django does.",
            obj=Ticket._meta.get_field("tag"),
            id="sharding.E063",
        )
    ]


@pytest.mark.parametrize(("rule", "instead"), [("DB_CASCADE", "CASCADE"), ("DB_SET_NULL", "SET_NULL")])
def test_between_servers_the_rule_has_to_be_djangos(found, rule, instead):
    class Invoice(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        region = models.ForeignKey(shop.Region, getattr(models, rule), null=True)

    class Plan(ReferenceModel):
        region = models.ForeignKey(shop.Region, getattr(models, rule), null=True, related_name="+")

        class Meta:
            app_label = "shop"

    remedy = f"db_constraint=False and on_delete={instead}: what that says is done by Django, on every database."
    assert [(each.id, each.hint) for each in found()] == [
        ("sharding.E030", f"Set {remedy}"),
        ("sharding.E050", f"Make shop.Region a ReferenceModel as well, or set {remedy}"),
    ]

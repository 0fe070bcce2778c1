"""Checks of ids and unique constraints: what one database cannot keep unique over the cluster."""

from __future__ import annotations

import pytest
from django.contrib.postgres.constraints import ExclusionConstraint
from django.contrib.postgres.fields import DateTimeRangeField
from django.core.checks import Error
from django.db import models
from django.db.models.functions import Lower

from sharding.models import ShardedModel
from tests.model_checks.bases import Uuid
from tests.shop import models as shop


def ids(kind):
    return [
        Error(
            f"shop.Invoice.id is a {kind}: every shard counts by itself, so ids repeat.",
            hint="Use a ShardUUIDField or a ShardBigIntegerField, whose ids are unique over the cluster.",
            id="sharding.E026",
        )
    ]


@pytest.mark.parametrize("kind", [models.AutoField, models.BigAutoField, models.SmallAutoField])
def test_ids_that_repeat(found, kind):
    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        id = kind(primary_key=True)
        tenant_id = models.IntegerField()

        class Meta:
            app_label = "shop"

    [expected] = ids(kind.__name__)
    expected.obj = Invoice._meta.get_field("id")
    assert found() == [expected]


@pytest.mark.parametrize(
    "field",
    [
        models.UUIDField(primary_key=True),
        models.IntegerField(primary_key=True),
        models.OneToOneField(shop.Region, models.CASCADE, primary_key=True, db_constraint=False),
    ],
    ids=lambda field: type(field).__name__,
)
def test_ids_that_do_not_determine_the_bucket(found, field):
    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        code = field
        tenant_id = models.IntegerField()

        class Meta:
            app_label = "shop"

    assert found() == [
        Error(
            "shop.Invoice.code is the primary key and does not say in which bucket a row lives: it is neither the "
            "shard key (tenant_id), nor does it hold the bucket.",
            hint="Use a ShardUUIDField or a ShardBigIntegerField, or CompositePrimaryKey('tenant_id', …).",
            obj=field,
            id="sharding.E027",
        )
    ]


def test_a_composite_id_without_the_key(found):
    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        pk = models.CompositePrimaryKey("year", "number")
        tenant_id = models.IntegerField()
        year = models.IntegerField()
        number = models.IntegerField()

        class Meta:
            app_label = "shop"

    assert found() == [
        Error(
            "shop.Invoice.pk is the primary key and does not say in which bucket a row lives: it is neither the "
            "shard key (tenant_id), nor does it hold the bucket.",
            hint="Use a ShardUUIDField or a ShardBigIntegerField, or CompositePrimaryKey('tenant_id', …).",
            obj=Invoice._meta.pk,
            id="sharding.E027",
        )
    ]


UNIQUE = [
    ({"number": models.IntegerField(unique=True)}, {}, "shop.Invoice.number is unique by itself"),
    ({}, {"unique_together": [("year", "number")]}, "shop.Invoice has unique_together ('year', 'number')"),
    (
        {},
        {"constraints": [models.UniqueConstraint(fields=["number"], name="one")]},
        "shop.Invoice has the unique constraint 'one'",
    ),
    (
        {},
        {"constraints": [models.UniqueConstraint(fields=["number"], name="some", condition=models.Q(tenant_id=1))]},
        "shop.Invoice has the unique constraint 'some'",
    ),
    (
        {},
        {"constraints": [models.UniqueConstraint(Lower("title"), name="lower")]},
        "shop.Invoice has the unique constraint 'lower'",
    ),
    (
        {},
        {"constraints": [models.UniqueConstraint(models.F("tenant_id") % 7, "number", name="seventh")]},
        "shop.Invoice has the unique constraint 'seventh'",
    ),
    (
        {},
        {"constraints": [models.UniqueConstraint(fields=["customer", "title"], name="nulls", nulls_distinct=False)]},
        "shop.Invoice has the unique constraint 'nulls'",
    ),
]


def invoice(fields, options):
    """Return a sharded model with these fields and Meta options."""
    meta = type("Meta", (), {"app_label": "shop", **options})
    columns = {
        "shard_key": "tenant_id",
        "tenant_id": models.IntegerField(),
        "number": models.IntegerField(),
        "year": models.IntegerField(),
        "title": models.CharField(max_length=9),
        "customer": models.ForeignKey(shop.Customer, models.CASCADE, null=True),
        **fields,
    }
    return type("Invoice", (Uuid,), {"__module__": __name__, "Meta": meta, **columns})


@pytest.mark.parametrize(("fields", "options", "what"), UNIQUE, ids=[case[2] for case in UNIQUE])
def test_unique_constraints_without_the_key(found, fields, options, what):
    model = invoice(fields, options)
    assert found() == [
        Error(
            f"{what}, without the shard key 'tenant_id': two shards may hold the same values.",
            hint="Make it unique together with 'tenant_id', for example by "
            "UniqueConstraint(fields=['tenant_id', …], name=…), or give Invoice a unique LookupIndex of the same "
            "fields.",
            obj=model._meta.get_field("number") if fields else model,
            id="sharding.E025",
        )
    ]


@pytest.mark.parametrize(
    ("fields", "options"),
    [
        ({}, {"unique_together": [("tenant_id", "number")]}),
        ({}, {"constraints": [models.UniqueConstraint(fields=["tenant_id", "number"], name="one")]}),
        ({}, {"constraints": [models.UniqueConstraint(fields=["id", "number"], name="with_id")]}),
        ({}, {"constraints": [models.UniqueConstraint(fields=["customer", "number"], name="a_customer")]}),
        ({}, {"constraints": [models.UniqueConstraint("tenant_id", Lower("title"), name="lower")]}),
        ({}, {"constraints": [models.UniqueConstraint(models.F("tenant_id").desc(), "title", name="ordered")]}),
        ({}, {"constraints": [models.CheckConstraint(condition=models.Q(year__gt=0), name="no_unique_constraint")]}),
        ({"customer": models.OneToOneField(shop.Customer, models.CASCADE, null=True)}, {}),
        ({"tenant_id": models.IntegerField(unique=True)}, {}),
    ],
)
def test_unique_constraints_that_a_shard_can_enforce(found, fields, options):
    invoice(fields, options)
    assert found() == []


@pytest.mark.parametrize(
    ("compared", "sound"),
    [
        ([("room", "=")], False),
        ([("tenant_id", "<>"), ("room", "=")], False),
        ([(Lower("room"), "=")], False),
        ([("tenant_id", "="), ("room", "=")], True),
        ([(models.F("tenant_id"), "=")], True),
    ],
)
def test_exclusion_constraints(found, compared, sound):
    """Two bookings of one room would be on two shards, which know nothing of each other."""

    class Booking(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        room = models.CharField(max_length=20)
        period = DateTimeRangeField()

        class Meta:
            app_label = "shop"
            constraints = [ExclusionConstraint(name="no_overlap", expressions=[*compared, ("period", "&&")])]

    expected = Error(
        "shop.Booking has the exclusion constraint 'no_overlap', without the shard key 'tenant_id': rows of two shards "
        "may overlap.",
        hint="Add ('tenant_id', RangeOperators.EQUAL) to its expressions.",
        obj=Booking,
        id="sharding.E025",
    )
    assert [each for each in found() if str(each.id).startswith("sharding")] == ([] if sound else [expected])

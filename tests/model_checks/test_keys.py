"""Checks of shard keys: whole messages, and silence for keys that have a bucket."""

from __future__ import annotations

import pytest
from django.contrib.postgres.fields import ArrayField
from django.core.checks import Error
from django.db import models
from django.test import override_settings

from sharding import registry
from sharding.fields import ShardBigIntegerField, ShardUUIDField
from sharding.models import ShardedModel
from tests.model_checks.bases import Uuid
from tests.shop import models as shop

UNHASHABLE_HINT = "Use a field of integers, text, UUIDs, dates, decimals or bytes."


def test_no_shard_key(found):
    class Invoice(Uuid):
        pass

    assert found() == [
        Error(
            "shop.Invoice is a ShardedModel without a shard_key.",
            hint='Name the field whose value decides where a row lives, for example shard_key = "tenant_id".',
            obj=Invoice,
            id="sharding.E021",
        )
    ]


@pytest.mark.parametrize("name", ["tenant", "pk", "notes", "parts"])
def test_a_shard_key_that_is_no_column(found, name):
    class Part(models.Model):
        class Meta:
            app_label = "shop"

    class Invoice(Uuid):
        shard_key = name
        number = models.IntegerField()
        parts = models.ManyToManyField(Part, through="InvoicePart")

    class InvoicePart(Uuid):
        shard_key = "number"
        number = models.IntegerField()
        invoice = models.ForeignKey(Invoice, models.CASCADE, related_name="notes")
        part = models.ForeignKey(Part, models.CASCADE, db_constraint=False)

    assert found() == [
        Error(
            f"shop.Invoice.shard_key is {name!r}, which is no column of Invoice.",
            hint="Name one of its fields: id, number.",
            obj=Invoice,
            id="sharding.E021",
        )
    ]


def test_a_shard_key_may_be_named_by_its_attribute(found):
    class Entry(Uuid):
        shard_key = "account_id"
        account = models.ForeignKey(shop.Account, models.CASCADE)

    assert found() == []


def test_a_key_that_may_be_null(found):
    class Invoice(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField(null=True)

    assert found() == [
        Error(
            "shop.Invoice.tenant_id is the shard key and may be NULL.",
            hint="Remove null=True: a row without a key has no bucket, so it could be stored nowhere.",
            obj=Invoice._meta.get_field("tenant_id"),
            id="sharding.E022",
        )
    ]


@pytest.mark.parametrize(
    "field",
    [
        models.FloatField(),
        models.BooleanField(),
        models.JSONField(),
        models.DurationField(),
        models.TimeField(),
        models.FileField(),
        ArrayField(models.IntegerField()),
    ],
    ids=lambda field: type(field).__name__,
)
def test_a_key_that_cannot_be_hashed(found, field):
    class Invoice(Uuid):
        shard_key = "key"
        key = field

    assert found() == [
        Error(
            f"shop.Invoice.key is the shard key, but the values of a {type(field).__name__} have no bucket.",
            hint=UNHASHABLE_HINT,
            obj=field,
            id="sharding.E023",
        )
    ]


class Money(models.Field):
    """A field that a project made itself."""


@pytest.mark.parametrize(
    "field",
    [
        models.BigIntegerField(),
        models.CharField(max_length=9),
        models.SlugField(),
        models.UUIDField(),
        models.BinaryField(),
        models.DateField(),
        models.DateTimeField(),
        models.DecimalField(max_digits=5, decimal_places=2),
        models.GenericIPAddressField(),
        ShardUUIDField(),
        ShardBigIntegerField(),
        Money(),
    ],
    ids=lambda field: type(field).__name__,
)
def test_a_key_that_can_be_hashed(found, field):
    class Invoice(Uuid):
        shard_key = "key"
        key = field

    assert found() == []


@pytest.mark.parametrize(
    ("changed", "field", "reason", "hint"),
    [
        (
            {"USE_TZ": False},
            models.DateTimeField(),
            "USE_TZ is False, and a DateTimeField without time zones names no moment",
            UNHASHABLE_HINT,
        ),
        (
            {"SHARDING": {"SHARDS": ["shard_a"], "HASH": "identity"}},
            models.CharField(max_length=9),
            "SHARDING['HASH'] is 'identity', which takes integers, and a CharField has none",
            "Use an integer field, or leave SHARDING['HASH'] out: mmh3 takes other types as well.",
        ),
    ],
)
def test_a_key_that_these_settings_cannot_hash(found, changed, field, reason, hint):
    class Invoice(Uuid):
        shard_key = "key"
        key = field

    with override_settings(**changed):
        assert found() == [
            Error(f"shop.Invoice.key is the shard key, but {reason}.", hint=hint, obj=field, id="sharding.E023")
        ]


def test_identity_takes_integers_and_ids_that_hold_the_bucket(found):
    class Invoice(Uuid):
        shard_key = "id"

    class Item(Uuid):
        shard_key = "number"
        number = models.PositiveIntegerField()

    with override_settings(SHARDING={"SHARDS": ["shard_a"], "HASH": "identity"}):
        assert found() == []


def test_an_auto_field_as_its_own_key(found):
    class Invoice(ShardedModel):
        shard_key = "id"
        id = models.BigAutoField(primary_key=True)

        class Meta:
            app_label = "shop"

    assert found() == [
        Error(
            "shop.Invoice.id is the shard key, but the database makes the values of a BigAutoField after the row's "
            "shard must be known.",
            hint="Use a ShardUUIDField or a ShardBigIntegerField: its bucket is part of the id.",
            obj=Invoice._meta.get_field("id"),
            id="sharding.E023",
        )
    ]


def test_the_bucket_as_key(found):
    class Invoice(Uuid):
        shard_key = "bucket"

    assert found() == [
        Error(
            "shop.Invoice.bucket is the shard key, but the bucket is computed from the key.",
            hint="Name the field whose value decides where a row lives, not 'bucket'.",
            obj=Invoice._meta.get_field("bucket"),
            id="sharding.E023",
        )
    ]


def test_a_foreign_key_whose_target_gives_no_bucket(found):
    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        number = models.CharField(max_length=9, primary_key=True)
        tenant_id = models.IntegerField()

        class Meta:
            app_label = "shop"

    class Item(Uuid):
        shard_key = "invoice"
        invoice = models.ForeignKey(Invoice, models.CASCADE)

    assert found()[0] == Error(
        "shop.Item.invoice is the shard key and refers to shop.Invoice.number, which does not say in which bucket "
        "that Invoice lives.",
        hint="Make shop.Invoice.number a ShardUUIDField or a ShardBigIntegerField, or shard shop.Item by the same key "
        "as shop.Invoice: a field of its own for 'tenant_id'.",
        obj=Item._meta.get_field("invoice"),
        id="sharding.E024",
    )
    assert [each.id for each in found()] == ["sharding.E024", "sharding.E027"]


def test_foreign_keys_whose_targets_give_a_bucket(found):
    class Tenant(models.Model):
        """Global: the hash of its id is the bucket."""

        class Meta:
            app_label = "shop"

    class Profile(ShardedModel):
        shard_key = "account"
        account = models.OneToOneField(shop.Account, models.CASCADE, primary_key=True)

        class Meta:
            app_label = "shop"

    class Invoice(Uuid):
        shard_key = "tenant"
        tenant = models.ForeignKey(Tenant, models.CASCADE, db_constraint=False)

    class Visit(Uuid):
        shard_key = "profile"
        profile = models.ForeignKey(Profile, models.CASCADE)

    class Alarm(Uuid):
        shard_key = "device"
        device = models.ForeignKey(shop.Device, models.CASCADE)

    assert found() == []
    assert registry.get(Invoice).bucket_of_key(7) == registry.get(shop.Customer).bucket_of_key(7)


def test_a_foreign_key_to_a_global_model_that_cannot_be_hashed(found):
    class Place(models.Model):
        id = models.FloatField(primary_key=True)

        class Meta:
            app_label = "shop"

    class Visit(Uuid):
        shard_key = "place"
        place = models.ForeignKey(Place, models.CASCADE, db_constraint=False)

    assert found() == [
        Error(
            "shop.Visit.place is the shard key, but the values of a FloatField have no bucket.",
            hint=UNHASHABLE_HINT,
            obj=Visit._meta.get_field("place"),
            id="sharding.E023",
        )
    ]


def test_a_foreign_key_to_nowhere_is_left_to_django(found):
    class Invoice(Uuid):
        shard_key = "tenant"
        tenant = models.ForeignKey("Missing", models.CASCADE)
        parts = models.ManyToManyField("Missing")  # type: ignore[var-annotated]

    class Item(Uuid):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        missing = models.ForeignKey("Missing", models.CASCADE)

    assert found() == []

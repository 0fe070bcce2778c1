"""System checks of sharded models: each id with its whole message and hint, and silence where all is well."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from django.apps import apps as installed
from django.contrib.postgres.fields import ArrayField
from django.core.checks import Error, Warning
from django.db import models
from django.db.models.functions import Lower
from django.test import override_settings
from django.test.utils import isolate_apps

from sharding import cluster_checks, cluster_map, model_checks, registry
from sharding.bucket_map import BucketMap
from sharding.fields import ShardBigIntegerField, ShardUUIDField
from sharding.model_checks import MODEL_CHECKS
from sharding.models import ShardedModel
from tests.shop import models as shop

SOURCES = [*Path(model_checks.__file__).parent.glob("*.py"), Path(cluster_checks.__file__)]
REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "checks.md"
UNHASHABLE_HINT = "Use a field of integers, text, UUIDs, dates, decimals or bytes."


@pytest.fixture(autouse=True)
def isolated(monkeypatch):
    """Models made by a test are in no registry afterwards, and shards are declared that own buckets."""
    monkeypatch.setattr(registry, "_models", dict(registry._models))
    monkeypatch.setattr(cluster_map, "_loaded", None)
    registry.reset()
    with isolate_apps("tests.shop") as apps:
        yield apps
    registry.reset()


@pytest.fixture
def found(isolated):
    """Return what the checks say of the models made so far."""
    return lambda: [each for check in MODEL_CHECKS for each in check(list(isolated.get_app_configs()))]


class Uuid(ShardedModel):
    """What most cases need: an id that holds the bucket."""

    id = ShardUUIDField(primary_key=True)

    class Meta:
        abstract = True
        app_label = "shop"


def test_the_models_of_the_shop_are_silent():
    assert [each for check in MODEL_CHECKS for each in check([installed.get_app_config("shop")])] == []
    assert [each for check in MODEL_CHECKS for each in check(None)] == []


# The shard key


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


# A foreign key as shard key


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


# Ids and unique constraints


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
            "UniqueConstraint(fields=['tenant_id', …], name=…).",
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


# Tables tied together


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


# How severe


def everything():
    class Label(models.Model):
        class Meta:
            app_label = "shop"

    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        id = models.BigAutoField(primary_key=True)
        number = models.IntegerField(unique=True)
        labels = models.ManyToManyField(Label)
        label = models.ForeignKey(Label, models.CASCADE)

        class Meta:
            app_label = "shop"

    class Item(ShardedModel):
        shard_key = "tenant_id"
        tenant_id = models.IntegerField()
        id = models.UUIDField(primary_key=True)

        class Meta:
            app_label = "shop"

    class Credit(Invoice):
        class Meta:
            app_label = "shop"


def numbers(found):
    return sorted(each.id for each in found())


def test_warnings_while_default_is_the_only_owner(found):
    everything()
    with override_settings(SHARDING={"SHARDS": []}):
        assert numbers(found) == [f"sharding.W{number:03}" for number in range(25, 31)]
        assert {type(each) for each in found()} == {Warning}


def test_errors_as_soon_as_shards_are_declared(found):
    everything()
    assert numbers(found) == [f"sharding.E{number:03}" for number in range(25, 31)]
    assert {type(each) for each in found()} == {Error}


@pytest.mark.parametrize(("owner", "letter"), [("default", "W"), ("shard_a", "E")])
def test_a_map_that_is_known_says_who_owns(found, monkeypatch, owner, letter):
    everything()
    known = cluster_map.Loaded(BucketMap.whole(owner, 4096, epoch=1), {}, 0.0)
    monkeypatch.setattr(cluster_map, "_loaded", known)
    assert numbers(found) == [f"sharding.{letter}{number:03}" for number in range(25, 31)]


def test_every_id_is_in_the_reference_once():
    used = {number for source in SOURCES for number in re.findall(r'id="(sharding\.[EWI]\d{3})"', source.read_text())}
    shared = {number for source in SOURCES for number in re.findall(r'^\s+"(\d{3})",$', source.read_text(), re.M)}
    used |= {f"sharding.{letter}{number}" for number in shared for letter in "EW"}
    listed = re.findall(r"`(sharding\.[EWI]\d{3})`", REFERENCE.read_text())
    assert len(listed) == len(set(listed))
    assert sorted(used - set(listed)) == []
    assert len(used) == 25

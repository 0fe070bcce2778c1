"""The generated models: what migrations make, and that nobody else writes them."""

from __future__ import annotations

import io

import pytest
from django.contrib import admin
from django.core import serializers
from django.core.management import call_command
from django.db import models

from sharding import registry
from sharding.errors import LookupRefused
from sharding.fields import ShardBigIntegerField
from sharding.lookups import tables
from sharding.models import LookupIndex, ShardedModel
from sharding.router import ShardRouter
from tests.lookups.stored import differences, emails, entry_model, lookup
from tests.model_checks.bases import Uuid
from tests.shop.models import Member

DATABASES = ["default", "shard_a", "shard_b", "shard_c"]


def test_an_entry_has_the_key_of_its_row_its_values_and_the_bucket():
    model = entry_model("MemberEmailLookup")
    assert [(field.name, type(field).__name__) for field in model._meta.local_concrete_fields] == [
        ("id", "UUIDField"),
        ("bucket", "SmallIntegerField"),
        ("email", "EmailField"),
    ]
    assert model._meta.pk.name == "id"
    assert model._meta.db_table == "shop_member_email_lookup"
    assert [each.name for each in model._meta.constraints] == ["shop_member_email_lookup_key"]
    assert model._meta.default_permissions == ()


def test_a_composite_primary_key_is_one_of_the_entry_too():
    model = entry_model("SeatCodeLookup")
    assert [field.name for field in model._meta.pk_fields] == ["tenant_id", "number"]
    assert model._meta.db_table == "shop_seat_by_code"


def test_columns_keep_their_type_and_nothing_else(isolated):
    class Invoice(Uuid):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["code", "amount"], unique=True)]
        tenant_id = models.IntegerField()
        code = models.SlugField(
            "the code", max_length=7, default="x", choices=[("x", "X")], help_text="?", db_collation="C", db_index=True
        )
        amount = models.DecimalField(max_digits=7, decimal_places=2, db_column="the_amount", validators=[print])

    [made] = registry.get(Invoice).lookups
    assert made.name == "shop_invoice_code_the_amount_lookup"
    code, amount = (made.model._meta.get_field(name) for name in ("code", "amount"))
    assert code.deconstruct()[1:] == (
        "django.db.models.SlugField",
        [],
        {"max_length": 7, "db_collation": "C", "db_index": False},
    )
    assert amount.deconstruct()[3] == {"max_digits": 7, "decimal_places": 2, "db_column": "the_amount"}
    assert amount.column == "the_amount"


def test_an_entry_takes_the_stored_value_of_a_field_that_computes_its_own(isolated):
    class Slug(models.SlugField):
        def pre_save(self, model_instance, add):
            return model_instance.title.lower()

    class Article(Uuid):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["slug"])]
        tenant_id = models.IntegerField()
        title = models.CharField(max_length=40)
        slug = Slug()

    [made] = registry.get(Article).lookups
    field = made.model._meta.get_field("slug")
    assert field.pre_save(made.model(slug="stored"), True) == "stored"


@pytest.mark.parametrize(
    ("pk", "expected"),
    [
        (ShardBigIntegerField(primary_key=True), "BigIntegerField"),
        (models.BigAutoField(primary_key=True), "BigIntegerField"),
        (models.CharField(max_length=9, primary_key=True), "CharField"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, models.Field) else each,
)
def test_primary_keys_that_are_made_by_others(isolated, pk, expected):
    class Invoice(ShardedModel):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["email"])]
        number = pk
        tenant_id = models.IntegerField()
        email = models.EmailField()

        class Meta:
            app_label = "shop"

    [made] = registry.get(Invoice).lookups
    assert type(made.model._meta.pk).__name__ == expected
    assert made.model._meta.pk.name == "number"


def test_an_abstract_model_hands_its_lookups_down(isolated):
    class Person(Uuid):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["email"], unique=True)]
        tenant_id = models.IntegerField()
        email = models.EmailField()

        class Meta:
            abstract = True
            app_label = "shop"

    class Teacher(Person):
        pass

    class Pupil(Person):
        lookups = ()

    assert [each.name for each in registry.get(Teacher).lookups] == ["shop_teacher_email_lookup"]
    assert registry.get(Pupil).lookups == ()


def test_long_names_are_cut(isolated):
    class Invoice(Uuid):
        shard_key = "tenant_id"
        lookups = [LookupIndex(fields=["a" * 40, "b" * 40], unique=True), LookupIndex(fields=["a" * 40])]
        tenant_id = models.IntegerField()
        locals()["a" * 40] = models.IntegerField()
        locals()["b" * 40] = models.IntegerField()

    first, second = registry.get(Invoice).lookups
    assert len(first.name) == len(first.model._meta.constraints[0].name) == tables.LONGEST_NAME
    assert len(second.model._meta.indexes[0].name) == 30


def test_a_lookup_tells_what_it_is():
    assert repr(Member.lookups[0]) == "LookupIndex(fields=['email'], unique=True)"
    assert repr(LookupIndex(fields=["a"], name="b")) == "LookupIndex(fields=['a'], name='b')"


def test_entries_are_in_the_control_database_alone():
    router = ShardRouter()
    assert router.allow_migrate("shard_a", "shop", model_name="memberemaillookup") is False
    assert router.allow_migrate("default", "shop", model_name="memberemaillookup") is None
    assert not registry.is_sharded("shop.memberemaillookup")


@pytest.mark.django_db(databases="__all__")
def test_migrations_are_complete():
    call_command("makemigrations", "shop", "sharding", check=True, dry_run=True, verbosity=0)


def test_the_admin_does_not_show_entries():
    assert not admin.site.is_registered(entry_model("MemberEmailLookup"))


@pytest.mark.parametrize(("verb", "act"), [("saved", "save"), ("deleted", "delete")])
def test_entries_are_not_written_by_hand(verb, act):
    with pytest.raises(LookupRefused) as raised:
        getattr(entry_model("MemberEmailLookup")(email="a"), act)()
    assert str(raised.value) == (
        f"A MemberEmailLookup is an entry of a lookup and cannot be {verb}: entries are written together with their "
        f"rows. Write the row instead."
    )
    assert (raised.value.model, raised.value.lookup) == ("shop.MemberEmailLookup", "shop_member_email_lookup")


@pytest.mark.django_db(databases=DATABASES)
def test_a_dump_of_the_app_can_be_loaded(tmp_path):
    for tenant in range(4):
        Member.objects.create(tenant_id=tenant, email=f"{tenant}@example.com", city="Rome")
    from aggregator import fan_out

    rows = [*lookup().entries.all(), *fan_out(Member.objects)]
    fixture = tmp_path / "dump.json"
    fixture.write_text(serializers.serialize("json", rows))
    fan_out(Member.objects).delete()
    assert emails() == set()
    call_command("loaddata", str(fixture), stdout=io.StringIO())
    assert emails() == {f"{tenant}@example.com" for tenant in range(4)}
    assert differences() == []

"""Checks of what is declared, of unique constraints that a lookup covers, and of lookups that are not built."""

from __future__ import annotations

import pytest
from django.core.checks import Error, Warning
from django.db import models
from django.db.models.functions import Upper

from sharding import cluster_map, registry
from sharding.control import LookupState
from sharding.fields import ShardUUIDField
from sharding.lookups import states
from sharding.model_checks import MODEL_CHECKS
from sharding.model_checks.lookups import check_built
from sharding.models import LookupIndex, ShardedModel
from tests.lookups.stored import EMAIL
from tests.shop.models import Customer, Member


@pytest.fixture
def found(isolated, monkeypatch):
    """Return what the checks say of the models made so far."""
    monkeypatch.setattr(cluster_map, "_loaded", None)
    return lambda: [each for check in MODEL_CHECKS for each in check(list(isolated.get_app_configs()))]


def invoice(lookups, **fields):
    columns = {
        "tenant_id": models.IntegerField(),
        "email": models.EmailField(),
        "number": models.IntegerField(null=True),
        **fields,
    }
    body = {"__module__": __name__, "shard_key": "tenant_id", "id": ShardUUIDField(primary_key=True), **columns}
    meta = type("Meta", (), {"app_label": "shop", **body.pop("meta", {})})
    return type("Invoice", (ShardedModel,), {**body, "lookups": lookups, "Meta": meta})


WRONG = [
    (LookupIndex(fields=["emial"]), "names 'emial', which is no column of the model"),
    (LookupIndex(fields=["tenant_id"]), "names 'tenant_id', which names the bucket without a lookup"),
    (LookupIndex(fields=["id"]), "names 'id', which names the bucket without a lookup"),
    (LookupIndex(fields=["bucket"]), "names 'bucket', which names the bucket without a lookup"),
    (LookupIndex(fields=["customer"]), "names 'customer', which is a foreign key"),
    (LookupIndex(fields=["shouted"]), "names 'shouted', which is computed by the database"),
    (LookupIndex(fields=["data"]), "names 'data', which is a JSONField"),
    (LookupIndex(fields=["scan"]), "names 'scan', which is a FileField"),
    (LookupIndex(fields=["email", "email"]), "names a field twice"),
    (LookupIndex(fields=[]), "names no field"),
    ("email", "is no LookupIndex"),
]


@pytest.mark.parametrize(("index", "reason"), WRONG, ids=[reason for _, reason in WRONG])
def test_what_cannot_be(found, index, reason):
    model = invoice(
        [index, LookupIndex(fields=["number"])],
        customer=models.ForeignKey(Customer, models.CASCADE),
        shouted=models.GeneratedField(expression=Upper("email"), output_field=models.TextField(), db_persist=True),
        data=models.JSONField(),
        scan=models.FileField(),
    )
    assert found() == [
        Error(
            f"{index!r} of shop.Invoice {reason}.",
            hint="Name columns of the model that are neither its key nor relations.",
            obj=model,
            id="sharding.E060",
        )
    ]
    assert [each.attnames for each in registry.get(model).lookups] == [("number",)]


def test_a_primary_key_that_is_a_relation(found):
    class Profile(ShardedModel):
        shard_key = "customer"
        lookups = [LookupIndex(fields=["email"])]
        customer = models.OneToOneField(Customer, models.CASCADE, primary_key=True)
        email = models.EmailField()

        class Meta:
            app_label = "shop"

    assert [each.msg for each in found()] == [
        "LookupIndex(fields=['email']) of shop.Profile needs a primary key that is no relation, unlike Profile's."
    ]


@pytest.mark.parametrize("given", ["email", models.TextField(), {"email": True}], ids=["text", "field", "dict"])
def test_no_list(found, given):
    model = invoice(given)
    [error] = found()
    assert error.msg.startswith("shop.Invoice.lookups is ")
    assert error.msg.endswith(", which is no list of LookupIndex.")
    assert (error.id, error.obj) == ("sharding.E060", model)
    assert error.hint == 'Write lookups = [LookupIndex(fields=["email"], unique=True)].'


def test_two_of_the_same_fields(found):
    model = invoice([LookupIndex(fields=["email"], unique=True), LookupIndex(fields=("email",))])
    assert found() == [
        Error(
            "shop.Invoice declares 2 lookups of the same fields.",
            hint="Remove all but one of them.",
            obj=model,
            id="sharding.E061",
        )
    ]
    assert [each.unique for each in registry.get(model).lookups] == [True]


EMAILS = LookupIndex(fields=["email"], unique=True)
BOTH = [models.UniqueConstraint(fields=["email", "number"], name="both")]


@pytest.mark.parametrize(
    ("lookups", "fields", "covered"),
    [
        ([EMAILS], {"email": models.EmailField(unique=True)}, True),
        ([EMAILS], {"meta": {"constraints": BOTH}}, True),
        ([EMAILS], {"meta": {"unique_together": [("email", "number")]}}, True),
        ([LookupIndex(fields=["email"])], {"email": models.EmailField(unique=True)}, False),
        ([LookupIndex(fields=["email", "number"], unique=True)], {"email": models.EmailField(unique=True)}, False),
        ([LookupIndex(fields=["email", "number"], unique=True)], {"meta": {"constraints": BOTH}}, True),
        (
            [LookupIndex(fields=["number"], unique=True)],
            {"meta": {"constraints": [models.UniqueConstraint(fields=["number"], nulls_distinct=False, name="one")]}},
            False,
        ),
    ],
    ids=["field", "constraint", "together", "not-unique", "wider", "same", "nulls"],
)
def test_unique_constraints_that_a_lookup_covers(found, lookups, fields, covered):
    invoice(lookups, **fields)
    assert [each.id for each in found()] == ([] if covered else ["sharding.E025"])


@pytest.mark.django_db
class TestBuilt:
    @pytest.fixture(autouse=True)
    def forget(self):
        states.forget()
        yield
        states.forget()

    def test_built(self):
        assert check_built(None, databases=["default"]) == []

    def test_not_built(self):
        LookupState.objects.using("default").filter(name=EMAIL).delete()
        assert check_built(None, databases=["default"]) == [
            Warning(
                f"The lookup {EMAIL} of shop.Member is not built, so that nothing is found by it.",
                hint=f"Run `manage.py shards lookup build {EMAIL}` when every process runs this code.",
                obj=Member,
                id="sharding.W062",
            )
        ]

    def test_only_the_control_database_is_asked(self):
        LookupState.objects.using("default").all().delete()
        assert check_built(None, databases=["shard_a"]) == check_built(None) == []

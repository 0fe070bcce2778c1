"""
The fields of sharded models: how ids and the bucket get into a row, and what the database itself refuses.
"""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction
from django.db.migrations.operations import AlterField, CreateModel, RenameField
from django.db.migrations.state import ProjectState
from django.db.migrations.writer import MigrationWriter
from django.db.models import BigAutoField, Model

from sharding import bucket_of, ids, shard_of
from sharding.errors import BucketMismatch
from sharding.fields import BucketField, ShardBigIntegerField, ShardUUIDField
from sharding.testing.statements import assert_no_fan_out, assert_statements
from tests.layouts import CLUSTER, tenant_on
from tests.messages import whole
from tests.shop.models import Account, Order, Tag
from tests.unfenced import unfenced

pytestmark = pytest.mark.django_db(databases=CLUSTER)

BUCKETS = (0, 1, 15, 16, 255, 256, 0x9AB, 0xCDE, 0xF00, 4095)


@pytest.fixture
def tenant() -> int:
    return tenant_on("shard_a")


def test_id_and_bucket_of_a_new_row(tenant: int) -> None:
    order, tag = Order(tenant_id=tenant), Tag(tenant_id=tenant, label="gift")
    assert (order.pk, order.bucket, tag.pk, tag.bucket) == (None, None, None, None)
    order.save()
    tag.save()
    bucket = bucket_of(tenant, model=Order)
    assert ids.bucket_of_uuid(order.pk) == order.bucket == bucket
    assert ids.bucket_of_bigint(tag.pk) == tag.bucket == bucket
    assert (order.pk.version, order.pk.variant) == (7, uuid.RFC_4122)


def test_new_rows_are_inserted_at_once(tenant: int) -> None:
    """Django tries an UPDATE first when a row has an id that no default made."""
    own = Order(pk=ids.new_uuid(bucket_of(tenant, model=Order)), tenant_id=tenant)
    for order in (Order(tenant_id=tenant), own):
        with assert_statements({"shard_a": 1}) as sent:
            order.save()
        assert sent["shard_a"][0].startswith("INSERT")


def test_given_id_is_kept(tenant: int) -> None:
    given = ids.new_uuid(bucket_of(tenant, model=Order))
    assert Order.objects.create(pk=str(given), tenant_id=tenant).pk == str(given)
    assert Order.objects.get(pk=given).tenant_id == tenant


@pytest.mark.parametrize(
    ("model", "pk", "found"),
    [
        (Order, ids.new_uuid(4000), 4000),
        (Order, str(uuid.UUID(int=0)), 0),
        (Tag, ids.pack_bigint(1, 1, 4000), 4000),
        (Tag, "7", 7),
        (Tag, -1, 4095),
    ],
)
def test_given_id_of_another_bucket(model: type[Model], pk: Any, found: int, tenant: int) -> None:
    message = (
        f"{model._meta.label}.id={pk!r} was made for bucket {found}, but the row belongs to bucket "
        f"{bucket_of(tenant, model=model)} by its tenant_id. Leave the id empty, and it is made for the row's bucket."
    )
    row = model(pk=pk, tenant_id=tenant)  # type: ignore[call-arg]
    for write in (row.save, lambda: model.objects.bulk_create([row])):  # type: ignore[attr-defined]
        with assert_statements({}), pytest.raises(BucketMismatch, match=whole(message)) as caught:
            in_block(write)
        assert (caught.value.value, caught.value.expected, caught.value.found) == (
            pk,
            bucket_of(tenant, model=model),
            found,
        )


def in_block(write: Any) -> None:
    with transaction.atomic(using="default"):
        write()


def test_rows_that_are_their_own_key_are_spread() -> None:
    accounts = Account.objects.bulk_create(Account(owner=str(place)) for place in range(60))
    assert {shard_of(account) for account in accounts} == {"shard_a", "shard_b", "shard_c"}
    for account in accounts[:3]:
        with assert_statements({shard_of(account): 1}):
            assert Account.objects.get(pk=account.pk) == account


@pytest.mark.parametrize("model", [Order, Tag])
def test_bulk_create_returns_ids(model: type[Any]) -> None:
    tenants = [tenant_on("shard_b"), tenant_on("shard_a"), tenant_on("shard_b", 1)] * 3
    with assert_no_fan_out():
        rows = model.objects.bulk_create(model(tenant_id=tenant) for tenant in tenants)
    assert [row.tenant_id for row in rows] == tenants
    assert len({row.pk for row in rows}) == len(tenants)
    for row in rows:
        assert model.objects.get(pk=row.pk).tenant_id == row.tenant_id


#: {table: an INSERT of an id and a bucket}
INSERTS = {
    "shop_order": "INSERT INTO shop_order (id, bucket, tenant_id, status, total) VALUES (%s, %s, 1, 'new', 0)",
    "shop_tag": "INSERT INTO shop_tag (id, bucket, tenant_id, label) VALUES (%s, %s, 1, 'gift')",
}


def stored(model: type[Model], bucket: int, alias: str) -> Any:
    """Return a new id of the bucket as the database of ``alias`` stores it."""
    made = ids.new_uuid(bucket) if model is Order else ids.pack_bigint(1 + bucket, 1, bucket)
    pk: Any = model._meta.pk
    return pk.get_db_prep_value(made, connections[alias])


@pytest.mark.parametrize("bucket", BUCKETS)
@pytest.mark.parametrize("alias", ["default", "shard_a"])
@pytest.mark.parametrize("model", [Order, Tag])
def test_the_database_refuses_another_buckets_id(model: type[Model], alias: str, bucket: int) -> None:
    table = model._meta.db_table
    sql = f"{INSERTS[table]} /* control database only */"
    with unfenced(alias, table), connections[alias].cursor() as cursor:
        cursor.execute(sql, [stored(model, bucket, alias), bucket])
        for wrong in {(bucket + 1) % 4096, bucket ^ 1, bucket ^ 2048} - {bucket}:
            with pytest.raises(IntegrityError, match=r"(?i)check constraint"), transaction.atomic(using=alias):
                cursor.execute(sql, [stored(model, bucket, alias), wrong])
        with pytest.raises(IntegrityError, match=r"(?i)check constraint"), transaction.atomic(using=alias):
            cursor.execute(f"UPDATE {table} SET bucket = 4095 - bucket /* control database only */")


FIELDS = [
    ShardUUIDField(primary_key=True),
    ShardBigIntegerField(primary_key=True, db_column="key"),
    ShardUUIDField(null=True, verbose_name="other"),
    BucketField(db_index=True),
]


@pytest.mark.parametrize("field", FIELDS, ids=repr)
def test_fields_in_migrations(field: Any) -> None:
    _, path, args, kwargs = field.deconstruct()
    again = type(field)(*args, **kwargs)
    assert path == f"sharding.fields.{type(field).__name__}"
    assert "editable" not in kwargs
    assert "default" not in kwargs
    assert not again.editable
    assert again.deconstruct()[1:] == (path, args, kwargs)
    text, imports = MigrationWriter.serialize(field)
    assert text.startswith(f"{path}(")
    assert imports == {"import sharding.fields"}


def test_forms_have_no_field_for_an_id() -> None:
    assert Order._meta.get_field("id").formfield() is None
    assert Tag._meta.get_field("id").formfield() is None
    assert ShardUUIDField(verbose_name="other").formfield() is not None


def test_a_default_is_made_for_no_id() -> None:
    assert Order._meta.pk.get_default() is None
    assert ShardBigIntegerField(default=7).get_default() == 7


POSTGRESQL = connections["default"].vendor == "postgresql"
#: A table that had rows before its model was sharded, on its way to ids that hold their bucket.
CREATED = CreateModel("plant", [("id", BigAutoField(primary_key=True)), ("bucket", BucketField(default=0))])
BECAME = AlterField("plant", "id", ShardBigIntegerField(primary_key=True))
CHECKS = """
    SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'garden_plant'::regclass AND contype = 'c'
"""


def migrate(*operations: Any, backwards: bool = False) -> None:
    """Apply operations to an empty database, or take back the last of them, which the others have led to."""
    states = [ProjectState()]
    for operation in operations:
        states.append(states[-1].clone())
        operation.state_forwards("garden", states[-1])
    with connections["default"].schema_editor() as editor:
        if backwards:
            operations[-1].database_backwards("garden", editor, states[-1], states[-2])
        else:
            operations[-1].database_forwards("garden", editor, states[-2], states[-1])


def ask(sql: str) -> list[Any]:
    with connections["default"].cursor() as cursor:
        cursor.execute(sql)
        return [row[0] for row in cursor.fetchall()] if cursor.description else []


@pytest.mark.skipif(not POSTGRESQL, reason="SQLite makes the table anew, with its checks")
def test_a_column_that_becomes_an_id_gets_the_check() -> None:
    migrate(CREATED)
    migrate(CREATED, BECAME)
    assert ask(CHECKS) == ["CHECK (((id & (4095)::bigint) = bucket))"]
    renamed = RenameField("plant", "id", "number")
    migrate(CREATED, BECAME, renamed)
    assert ask(CHECKS) == ["CHECK (((number & (4095)::bigint) = bucket))"]
    migrate(CREATED, BECAME, renamed, backwards=True)
    migrate(CREATED, BECAME, backwards=True)
    assert ask(CHECKS) == []
    migrate(CREATED, BECAME)
    assert len(ask(CHECKS)) == 1


@pytest.mark.skipif(not POSTGRESQL, reason="SQLite makes the table anew, with its checks")
def test_a_column_whose_numbers_hold_no_bucket_becomes_no_id() -> None:
    """They would name buckets of other keys, and rows that are there would not be found."""
    migrate(CREATED)
    ask("INSERT INTO garden_plant (bucket) VALUES (7)")
    with pytest.raises(IntegrityError, match="is violated by some row"):
        migrate(CREATED, BECAME)

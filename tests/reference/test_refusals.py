"""What would change one copy of a reference table alone is refused, in whatever dress it comes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import connections, transaction
from psycopg import sql

from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.errors import RawShardedSQL, ReferenceKeyChanged, WrongShard
from sharding.testing.statements import assert_statements
from tests import servers
from tests.layouts import CLUSTER, Layout
from tests.messages import whole
from tests.reference.conftest import World
from tests.shop.models import Country, Currency, Note, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)

ONE_COPY = (
    "This write of shop.Country is addressed to 'shard_b', but a reference model is written on all databases at once. "
    "Leave out using('shard_b')."
)


@pytest.mark.parametrize(
    "write",
    [
        lambda world: Country.objects.using("shard_b").create(code="NO"),
        lambda world: world.finland.save(using="shard_b"),
        lambda world: Country.objects.using("shard_b").update(name="?"),
        lambda world: Country.objects.using("shard_b").filter(code="FI")._raw_delete("shard_b"),
        lambda world: Country.objects.using("shard_b").bulk_create([Country(code="NO")]),
        lambda world: Country.objects.using("shard_b").update_or_create(code="FI", defaults={"name": "?"}),
    ],
)
def test_a_write_to_one_shard(write: Callable[[World], Any], layout: Layout, world: World) -> None:
    with pytest.raises(WrongShard, match=whole(ONE_COPY)) as caught, transaction.atomic(using="shard_b"):
        write(world)
    assert (caught.value.model, caught.value.alias, caught.value.expected) == ("shop.Country", "shard_b", "default")


def test_a_new_primary_key(layout: Layout, world: World) -> None:
    message = (
        "This update would set shop.Currency.code, the primary key of a reference model, by which the copies of a row "
        "are found. Create the row again under the new key, and delete the old one."
    )
    with (
        assert_statements({}),
        pytest.raises(ReferenceKeyChanged, match=whole(message)) as caught,
        transaction.atomic(using="default"),
    ):
        Currency.objects.filter(code="SEK").update(code="NOK")
    assert (caught.value.model, caught.value.field) == ("shop.Currency", "code")


def raw(statement: Any, params: Any = ()) -> None:
    with connections["default"].cursor() as cursor:
        cursor.execute(statement, params)


WRITES = [
    "UPDATE shop_country SET name = 'x'",
    'UPDATE "shop_country" SET name = (SELECT 1)',
    "update only shop_country set name = 'x'",
    "DELETE FROM shop_country WHERE code = 'FI'",
    "DELETE\n  FROM main.shop_country",
    "INSERT INTO shop_country (code) VALUES ('x')",
    "INSERT INTO shop_country (code) SELECT code FROM shop_country",
    "insert or replace into shop_country (code) values ('x')",
    "REPLACE INTO shop_country (code) VALUES ('x')",
    "WITH gone AS (DELETE FROM shop_country RETURNING 1) SELECT * FROM gone",
    "MERGE INTO public.shop_country USING shop_region ON true WHEN MATCHED THEN DELETE",
    "TRUNCATE shop_region, shop_country CASCADE",
    "TRUNCATE TABLE ONLY shop_country",
    "COPY shop_country FROM '/nowhere'",
    "COPY shop_country (id, name) FROM STDIN",
    "SELECT 1; DELETE FROM shop_country",
]


@pytest.mark.parametrize("statement", WRITES)
def test_raw_sql_that_writes(statement: str, world: World) -> None:
    message = (
        "This SQL on 'default' writes 'shop_country', a table of the reference model shop.Country, and would change "
        "the control database's copy only. Write through the model, or put /* control database only */ into the "
        "statement and copy the rows afterwards, with `manage.py shards audit --repair-reference`."
    )
    with assert_statements({}), pytest.raises(RawShardedSQL, match=whole(message)) as caught:
        raw(statement)
    assert caught.value.table == "shop_country"


LOCKING = ["SELECT name FROM shop_country FOR UPDATE OF shop_country"] if servers.engine == "postgresql" else []


@pytest.mark.parametrize(
    "statement",
    [
        *LOCKING,
        "SELECT name FROM shop_country",
        "SELECT 'delete from', name FROM shop_country",
        "SELECT count(*) FROM shop_country JOIN shop_currency ON true",
        "UPDATE shop_region SET name = (SELECT min(name) FROM shop_country)",
        "INSERT INTO shop_region (name) SELECT name FROM shop_country",
        "DELETE FROM shop_region WHERE name IN (SELECT name FROM shop_country)",
        f"UPDATE shop_country {CONTROL_ONLY} SET name = name",
    ],
)
def test_raw_sql_that_reads(statement: str, world: World) -> None:
    raw(statement)


DRESSES: list[Any] = [b"DELETE FROM shop_country"]
if servers.engine == "postgresql":
    DRESSES.append(sql.SQL("DELETE FROM {}").format(sql.Identifier("shop_country")))


@pytest.mark.parametrize("statement", DRESSES, ids=type)
def test_raw_sql_in_another_dress(statement: Any, world: World) -> None:
    with pytest.raises(RawShardedSQL):
        raw(statement)


def test_writes_of_global_models_may_read_reference_tables(world: World) -> None:
    Region.objects.create(name="north")
    assert Region.objects.update(name=Country.objects.filter(code="FI").values("name")) == 1
    Note.objects.filter(text__in=Country.objects.values("name")).delete()
    assert Region.objects.get().name == "Finland"

"""Raising the fence again: it follows what migrations, or somebody by hand, have made of the tables."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.db import DatabaseError, connections, transaction

from sharding import cluster_map, routing
from sharding.fence import installation, raising
from tests.fence.conftest import SHARD
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)

LEDGER = "public.shop_ledger"
INSERT = "INSERT INTO {} (bucket, tenant_id, number, text) VALUES ({}, 1, 1, 'x')"
#: A bucket of the shard's, and one of another.
OWN, FOREIGN = 0, 1
TRIGGERS = """
    SELECT c.relname || ' ' || replace(t.tgname, 'zz_sharding_fence_', '') FROM pg_trigger t
    JOIN pg_class c ON c.oid = t.tgrelid
    WHERE t.tgname LIKE 'zz\\_sharding%%' AND c.relname = ANY (%s) ORDER BY 1
"""
ROW = ("row_delete", "row_insert", "row_update", "truncate")


def execute(*statements: str, params: Any = None) -> Any:
    connection: Any = connections[SHARD]
    with connection.cursor() as cursor, routing.native(SHARD), connection.sharded_statements():
        for statement in statements:
            cursor.execute(statement, params)
        return cursor.fetchall() if cursor.description else None


def triggers(*tables: str) -> list[str]:
    return [line for (line,) in execute(TRIGGERS, params=[list(tables)])]


def refused(statement: str) -> str:
    with pytest.raises(DatabaseError) as caught, transaction.atomic(using=SHARD):
        execute(statement)
    return str(caught.value.__cause__).partition("\n")[0]


def partition() -> None:
    """Make the ledger a partitioned table."""
    execute(
        "CREATE TABLE parted (LIKE shop_ledger INCLUDING DEFAULTS, PRIMARY KEY (bucket, tenant_id, number)) "
        "PARTITION BY RANGE (bucket)",
        "DROP TABLE shop_ledger",
        "ALTER TABLE parted RENAME TO shop_ledger",
        "CREATE TABLE ledger_low PARTITION OF shop_ledger FOR VALUES FROM (0) TO (2048)",
    )


def test_again_nothing_is_changed() -> None:
    assert raising.raise_around(SHARD) == ()
    assert not installation.inspect(connections[SHARD])


def test_the_map_and_the_tests_agree_on_the_buckets() -> None:
    owner = cluster_map.current().owner
    assert (owner(OWN) == SHARD, owner(FOREIGN) == SHARD) == (True, False)


@pytest.mark.parametrize("form", ["row", "statement"])
def test_a_partitioned_table_and_its_partitions(form: str, settings: Any) -> None:
    settings.SHARDING = settings.SHARDING | {"FENCE": form}
    raising.raise_around(SHARD)
    partition()
    assert raising.raise_around(SHARD) == ("public.ledger_low", LEDGER)
    # The triggers of rows are the partition's by inheritance.
    assert triggers("shop_ledger", "ledger_low") == [
        *(f"ledger_low {each}" for each in ROW),
        *(f"shop_ledger {each}" for each in ROW),
    ]
    for name in ("shop_ledger", "ledger_low"):
        assert refused(INSERT.format(name, FOREIGN)) == (
            "Bucket 1 is none of this database's, so no row of it is written to shop_ledger here."
        )
    execute(INSERT.format("ledger_low", OWN), "UPDATE sharding_fence SET state = 'capturing' WHERE bucket = 0")
    for name in ("shop_ledger", "ledger_low"):
        assert refused(f"TRUNCATE {name}") == (
            "shop_ledger cannot be truncated while bucket 0 is being moved from or to this database."
        )
    execute("UPDATE ledger_low SET text = 'y'")
    assert execute("SELECT bucket, table_name, key FROM sharding_dirty") == [(0, "shop_ledger", json.dumps([0, 1, 1]))]
    assert raising.raise_around(SHARD) == ()


def test_a_partition_that_comes_later() -> None:
    partition()
    raising.raise_around(SHARD)
    execute("CREATE TABLE ledger_high PARTITION OF shop_ledger FOR VALUES FROM (2048) TO (4096)")
    # Rows are asked about from its first moment on.
    assert triggers("ledger_high") == [f"ledger_high {each}" for each in ROW[:3]]
    assert raising.raise_around(SHARD) == ("public.ledger_high",)
    assert triggers("ledger_high") == [f"ledger_high {each}" for each in ROW]


def test_a_partition_that_leaves() -> None:
    partition()
    raising.raise_around(SHARD)
    execute("ALTER TABLE shop_ledger DETACH PARTITION ledger_low")
    assert triggers("ledger_low") == ["ledger_low truncate"]
    assert raising.raise_around(SHARD) == ("public.ledger_low",)
    assert triggers("ledger_low") == []


def test_a_table_that_no_sharded_model_has() -> None:
    """As a model that is renamed or sharded no longer leaves its table, if nobody drops it."""
    execute("ALTER TABLE shop_ledger RENAME TO ledger")
    assert triggers("ledger") == [f"ledger {each}" for each in ROW]
    assert raising.raise_around(SHARD) == ("public.ledger",)
    assert triggers("ledger") == []
    execute(INSERT.format("ledger", FOREIGN), "DELETE FROM ledger")
    execute("ALTER TABLE ledger RENAME TO shop_ledger")
    assert raising.raise_around(SHARD) == (LEDGER,)
    refused(INSERT.format("shop_ledger", FOREIGN))


def test_a_table_that_has_no_bucket_any_more() -> None:
    execute("ALTER TABLE shop_ledger DROP COLUMN bucket CASCADE")
    assert raising.raise_around(SHARD) == (LEDGER,)
    assert triggers("shop_ledger") == []


def test_a_table_that_is_made_anew() -> None:
    execute(
        "CREATE TABLE other (LIKE shop_ledger INCLUDING ALL)",
        "DROP TABLE shop_ledger",
        "ALTER TABLE other RENAME TO shop_ledger",
    )
    assert triggers("shop_ledger") == []
    assert raising.raise_around(SHARD) == (LEDGER,)
    assert triggers("shop_ledger") == [f"shop_ledger {each}" for each in ROW]


def noted(*statements: str) -> Any:
    """Return the keys that are noted of a row while its bucket is being copied."""
    execute("UPDATE sharding_fence SET state = 'capturing' WHERE bucket = 0", *statements)
    return [json.loads(key) for (key,) in execute("SELECT key FROM sharding_dirty ORDER BY seq")]


@pytest.mark.parametrize("form", ["row", "statement"])
def test_a_renamed_column_of_the_primary_key(form: str, settings: Any) -> None:
    settings.SHARDING = settings.SHARDING | {"FENCE": form}
    raising.raise_around(SHARD)
    execute("ALTER TABLE shop_ledger RENAME COLUMN number TO place")
    assert raising.raise_around(SHARD) == (LEDGER,)
    assert noted("INSERT INTO shop_ledger (bucket, tenant_id, place, text) VALUES (0, 1, 5, 'x')") == [[1, 5]]


def test_another_primary_key() -> None:
    (key,) = execute("SELECT conname FROM pg_constraint WHERE conrelid = 'shop_ledger'::regclass AND contype = 'p'")
    execute(
        f"ALTER TABLE shop_ledger DROP CONSTRAINT {key[0]} CASCADE",
        "ALTER TABLE shop_ledger ADD PRIMARY KEY (number, bucket)",
    )
    assert raising.raise_around(SHARD) == (LEDGER,)
    assert noted(INSERT.format("shop_ledger", OWN)) == [[1, 0]]


@pytest.mark.parametrize("word", ["DISABLE", "ENABLE REPLICA"])
def test_triggers_that_are_switched_off(word: str) -> None:
    execute(f"ALTER TABLE shop_ledger {word} TRIGGER zz_sharding_fence_row_update")
    assert raising.raise_around(SHARD) == (LEDGER,)
    assert not installation.inspect(connections[SHARD])
    execute(INSERT.format("shop_ledger", OWN))
    refused("UPDATE shop_ledger SET bucket = 1")


def test_another_form_takes_the_place_of_the_first(settings: Any) -> None:
    settings.SHARDING = settings.SHARDING | {"FENCE": {"shop.Ledger": "statement"}}
    assert raising.raise_around(SHARD) == (LEDGER,)
    assert triggers("shop_ledger") == [
        *(f"shop_ledger statement_{each}" for each in ("delete", "insert", "update")),
        "shop_ledger truncate",
    ]


def test_another_version_is_replaced() -> None:
    execute("COMMENT ON FUNCTION sharding_fence_check IS 'sharding fence 0'")
    assert installation.inspect(connections[SHARD]).functions
    assert raising.raise_around(SHARD) == ()
    assert not installation.inspect(connections[SHARD])

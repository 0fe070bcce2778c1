"""Every value of a row arrives on another server as it was stored, whatever its type and the servers' settings."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import IntegrityError, connections, transaction

from sharding import reference_rows
from sharding.reference_rows import Table
from sharding.testing.statements import statements
from tests import servers
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)

#: A column of each type: its name is its place.
VALUES: list[tuple[str, str]] = (
    [
        ("bigint", "-9223372036854775808"),
        ("numeric(30, 10)", "0.1234567891"),
        ("numeric", "'NaN'"),
        ("double precision", "0.1::float8 + 0.2::float8"),
        ("real", "'-Infinity'"),
        ("boolean", "false"),
        ("text", "E'100% \\' \\\\ \\n \u00e9 \u2603'"),
        ("varchar(5)", "''"),
        ("char(4)", "'ab'"),
        ("bytea", "'\\x00ff25'"),
        ("uuid", "'00000000-0000-4000-8000-000000000001'"),
        ("date", "'2013-01-02'"),
        ("date", "'infinity'"),
        ("time", "'12:34:56.789'"),
        ("timestamptz", "'2013-01-02 03:04:05.678901+05:30'"),
        ("timestamp", "'0044-03-15 BC'"),
        ("interval", "'1 mon -2 days 03:04:05.6'"),
        ("jsonb", "'null'"),
        ("jsonb", "NULL"),
        ("jsonb", """'{"a": [1, null, "x"]}'"""),
        ("json", '\'{"b":  1, "b": 2}\''),
        ("integer[]", "'{1,NULL,3}'"),
        ("text[][]", "'{{a,b},{\"c,d\",NULL}}'"),
        ("inet", "'10.0.0.1/8'"),
        ("int4range", "'[1,5)'"),
        ("tsvector", "'a:1 b:2'"),
        ("bit(3)", "'101'"),
        ("mood", "'so so'"),
    ]
    if servers.engine == "postgresql"
    else [
        ("bigint", "-9223372036854775808"),
        ("decimal", "'0.1234567891'"),
        ("real", "0.1 + 0.2"),
        ("bool", "0"),
        ("text", "'100% '' \u00e9'"),
        ("varchar(5)", "''"),
        ("blob", "x'00ff25'"),
        ("datetime", "'2013-01-02 03:04:05.678901'"),
        ("date", "'2013-01-02'"),
        ("text", "NULL"),
    ]
)
COLUMNS = tuple(f"c {place}" for place in range(len(VALUES)))
TABLE = Table("some rows", ("id", *COLUMNS), ("id",))


def execute(alias: str, sql: str) -> None:
    with connections[alias].cursor() as cursor:
        cursor.execute(sql)


@pytest.fixture
def tables(db: None) -> None:
    kinds = ", ".join(f'"{column}" {kind}' for column, (kind, _) in zip(COLUMNS, VALUES, strict=True))
    for alias in ("default", "shard_a"):
        if servers.engine == "postgresql":
            execute(alias, "CREATE TYPE mood AS ENUM ('so so', 'well')")
        execute(alias, f'CREATE TABLE "some rows" (id integer PRIMARY KEY, {kinds})')
    for number in range(3):
        execute("default", f'INSERT INTO "some rows" VALUES ({number}, {", ".join(value for _, value in VALUES)})')


def copied() -> list[Any]:
    rows = {}
    for alias in ("default", "shard_a"):
        reference_rows.write_comparably(connections[alias])
        rows[alias] = sorted(reference_rows.read(connections[alias], TABLE))
    assert rows["default"] == rows["shard_a"]
    return rows["shard_a"]


def test_every_type_arrives(tables: None) -> None:
    control, shard = connections["default"], connections["shard_a"]
    rows = reference_rows.read(control, TABLE)
    reference_rows.insert(shard, TABLE, rows)
    found = copied()
    assert len(found) == 3
    if servers.engine == "postgresql":
        with shard.cursor() as cursor:
            cursor.execute("""SELECT "c 17" IS NULL, "c 18" IS NULL FROM "some rows" """)
            assert cursor.fetchall() == [(False, True)] * 3
    # A second time, over what is there, and as an update.
    execute("default", f'UPDATE "some rows" SET "{COLUMNS[0]}" = id')
    reference_rows.insert(shard, TABLE, reference_rows.read(control, TABLE))
    copied()
    execute("default", f'UPDATE "some rows" SET "{COLUMNS[0]}" = 100 + id')
    reference_rows.update(shard, TABLE, reference_rows.read(control, TABLE))
    copied()


def test_what_an_update_misses_is_added(tables: None) -> None:
    rows = reference_rows.read(connections["default"], TABLE)
    reference_rows.insert(connections["shard_a"], TABLE, rows[:1])
    reference_rows.update(connections["shard_a"], TABLE, rows)
    copied()


def test_many_rows_are_written_in_batches(tables: None, monkeypatch: pytest.MonkeyPatch) -> None:
    width = len(TABLE.columns)
    monkeypatch.setattr(reference_rows, "PARAMETERS", 2 * width)
    monkeypatch.setattr(connections["shard_a"].features, "max_query_params", None)
    rows = reference_rows.read(connections["default"], TABLE)
    with statements() as sent:
        reference_rows.insert(connections["shard_a"], TABLE, rows)
    assert sent.counts == {"shard_a": 2}
    copied()


def test_a_key_of_several_columns(tables: None) -> None:
    for alias in ("default", "shard_a"):
        execute(alias, "CREATE TABLE pairs (a integer, b integer, PRIMARY KEY (a, b))")
    table = Table("pairs", ("a", "b"), ("a", "b"))
    rows = [(1, 1), (1, 2), (2, 1)]
    shard = connections["shard_a"]
    for _ in range(2):
        reference_rows.insert(shard, table, rows)
    # There is nothing to set.
    reference_rows.update(shard, table, rows)
    reference_rows.delete(shard, table, [(1, 2), (2, 1)])
    assert [tuple(map(int, row)) for row in reference_rows.read(shard, table)] == [(1, 1)]


def test_values_that_change_places_are_written_in_the_order_of_the_control_database(tables: None) -> None:
    """A unique constraint is checked row by row on both, and what one allows the other does."""
    for alias in ("default", "shard_a"):
        execute(alias, "CREATE TABLE places (id integer PRIMARY KEY, place integer UNIQUE)")
        execute(alias, "INSERT INTO places VALUES (1, 1), (2, 2), (3, 3)")
    table = Table("places", ("id", "place"), ("id",))
    reference_rows.update(connections["shard_a"], table, [(3, 4), (2, 3), (1, 2)])
    with pytest.raises(IntegrityError), transaction.atomic(using="shard_a"):
        reference_rows.update(connections["shard_a"], table, [(1, 3), (2, 4)])


STYLES = ["German, DMY", "SQL, MDY", "Postgres, DMY"] if servers.engine == "postgresql" else []


@pytest.mark.parametrize("style", [*STYLES, "ISO, DMY"])
def test_dates_of_a_server_with_a_style_of_its_own(style: str, tables: None) -> None:
    if servers.engine == "postgresql":
        execute("default", f"SET LOCAL DateStyle = '{style}'")
        execute("default", "SET LOCAL IntervalStyle = 'sql_standard'")
        execute("default", "SET LOCAL TimeZone = 'Asia/Kolkata'")
    reference_rows.write_plainly(connections["default"])
    reference_rows.insert(connections["shard_a"], TABLE, reference_rows.read(connections["default"], TABLE))
    copied()

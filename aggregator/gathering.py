"""
The last tier: rows of all shards in one place, where the original statement is run over them.

PostgreSQL gets them as common table expressions that have the names of the tables, SQLite in a throw-away database. So
whatever can be said in SQL can be answered, at the price of the rows that travel; their number is limited.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from django.apps import apps

from aggregator import executor, finishing, variance
from aggregator.compiled import Sql
from aggregator.gathered_conditions import ROW, joined
from aggregator.gathered_tables import Table
from aggregator.merge import Row
from sharding import conf, hidden_rows, ownership, reference_models, registry
from sharding.errors import GatherTooLarge

#: PostgreSQL types of which row_to_json() does not tell every value from NULL.
JSON = ("json", "jsonb")
#: Types that travel as text, since their JSON is not what is read again.
AS_TEXT = (*JSON, "hstore")


@dataclass(frozen=True, slots=True)
class Statement:
    """What is run over the rows of all shards."""

    sql: str
    params: Sequence[Any]
    #: What has to travel.
    tables: Sequence[Table]
    #: The label of the model that is asked for, and because of what its rows travel.
    model: str
    construct: str


def on_a_server(home: Any, connections: Sequence[Any], statement: Statement) -> list[Row]:
    """
    Run a statement on ``home`` over the rows that the connections' databases have (PostgreSQL).

    Raises:
        GatherTooLarge: more rows or bytes than SHARDING allows.
    """
    answers = executor.run(connections, finishing.fetching(*_together(home, statement.tables)))
    rows = [row for answer in answers for row in answer]
    _require_few([(statement.tables[place].name, number, size) for place, number, size, _ in rows], statement)
    arrays = [_array(rows, place) for place in range(len(statement.tables))]
    named = ", ".join(_common_table(home, table) for table in statement.tables)
    sql = f"WITH {named} {statement.sql}"
    return executor.run([home], finishing.fetching(sql, (*arrays, *statement.params)))[0]


def in_memory(home: Any, connections: Sequence[Any], statement: Statement) -> list[Row]:
    """As ``on_a_server()``, for SQLite."""
    from django.db.backends.sqlite3._functions import register  # type: ignore[import-untyped]
    from django.db.backends.sqlite3.base import SQLiteCursorWrapper

    memory = sqlite3.connect(":memory:", detect_types=sqlite3.PARSE_DECLTYPES | sqlite3.PARSE_COLNAMES)
    try:
        register(memory)
        variance.register(memory)
        for table in statement.tables:
            _copy(memory, home, connections, table, statement)
        for table in _whole_tables(statement.sql, home):
            _copy(memory, home, [home], table, statement)
        cursor = memory.cursor(factory=SQLiteCursorWrapper)
        with home.wrap_database_errors:
            found: list[Row] = cursor.execute(statement.sql, tuple(statement.params)).fetchall()
        return found
    finally:
        memory.close()


def fetching(home: Any, tables: Sequence[Table]) -> list[Sql]:
    """Return the statements by which each database is asked for its rows."""
    if home.vendor == "sqlite":
        return [_raw(home, table) for table in tables]
    return [_together(home, tables)]


def _require_few(counted: Sequence[tuple[str, int, int]], statement: Statement) -> None:
    """Check what has to travel: names of tables with the rows and bytes of each."""
    settings = conf.current()
    limits = {"ROWS": settings.gather_rows, "BYTES": settings.gather_bytes}
    for place, (what, limit) in enumerate(limits.items(), start=1):
        if sum(int(each[place]) for each in counted) <= limit:
            continue
        biggest = max(counted, key=itemgetter(place))[0]
        raise GatherTooLarge(
            f"Because of {statement.construct}, this {statement.model} query needs rows of all shards in one place: "
            f"more than SHARDING['GATHER_{what}'] = {limit}, most of them of the table {biggest!r}. Filter by columns "
            f"of that table, limit the query to one shard key, or raise the setting.",
            model=statement.model,
            construct=statement.construct,
            table=biggest,
            limit=limit,
        )


def _select(home: Any, table: Table, columns: Sequence[str]) -> Sql:
    quote = home.ops.quote_name
    conditions = [table.where] if table.where else []
    if home.vendor == "postgresql":
        bucket = f"{quote(ROW)}.{quote(registry.BUCKET_COLUMN)}"
        conditions.append(ownership.condition(bucket, careful=hidden_rows.may_exist(home.door)))
    where, params = joined(conditions, " AND ") if conditions else ("1 = 1", ())
    # One more than may travel tells that it is too much.
    limit = conf.current().gather_rows + 1
    rows = f"FROM {quote(table.name)} {quote(ROW)} WHERE {where} LIMIT {limit}"
    return f"SELECT {', '.join(columns)} {rows}", params


# PostgreSQL


def _together(home: Any, tables: Sequence[Table]) -> Sql:
    """Return one statement for all tables: for each table its number, its rows, their bytes, and they as JSON."""
    settings = conf.current()
    # What is too much is only counted.
    fits = f"count(*) <= {settings.gather_rows} AND sum(octet_length(r)) <= {settings.gather_bytes}"
    parts: list[str] = []
    params: list[Any] = []
    for place, table in enumerate(tables):
        inner, own = _select(home, table, [_fetched(home, field) for field in table.fields])
        parts.append(
            f"SELECT {place}, count(*), coalesce(sum(octet_length(r)), 0), "
            f"CASE WHEN {fits} THEN string_agg(r, ',') END "
            f"FROM (SELECT row_to_json(t)::text AS r FROM ({inner}) t) AS texts"
        )
        params += own
    return " UNION ALL ".join(parts), tuple(params)


def _fetched(home: Any, field: Any) -> str:
    column: str = home.ops.quote_name(field.column)
    return f"{column}::text AS {column}" if _element(home, field) in AS_TEXT else column


def _array(rows: Sequence[Row], place: int) -> str:
    return f"[{','.join(text for table, _, _, text in rows if table == place and text is not None)}]"


def _common_table(home: Any, table: Table) -> str:
    name = home.ops.quote_name(table.name)
    columns = ", ".join(_given_back(home, field) for field in table.fields)
    # The row type is the table's own, with the types and collations of its columns.
    return f"{name} AS MATERIALIZED (SELECT {columns} FROM json_populate_recordset(NULL::{name}, %s::json))"


def _given_back(home: Any, field: Any) -> str:
    column: str = home.ops.quote_name(field.column)
    kind = field.db_type(home)
    # The text of an array goes through the input of its type; that of JSON is a string within JSON.
    return f"({column} #>> '{{}}')::{kind} AS {column}" if kind in JSON else column


def _element(home: Any, field: Any) -> str:
    """Return the type of a field, or that of an array's elements."""
    return str(field.db_type(home)).partition("[")[0]


# SQLite


def _copy(memory: Any, home: Any, connections: Sequence[Any], table: Table, statement: Statement) -> None:
    quote = home.ops.quote_name
    answers = executor.run(connections, finishing.fetching(*_raw(home, table)))
    _require_few([(table.name, sum(map(len, answers)), 0)], statement)
    columns = ", ".join(_declared(home, field) for field in table.fields)
    memory.execute(f"CREATE TABLE {quote(table.name)} ({columns})")
    insert = f"INSERT INTO {quote(table.name)} VALUES ({', '.join('?' * len(table.fields))})"
    for rows in answers:
        memory.executemany(insert, rows)


def _raw(home: Any, table: Table) -> Sql:
    quote = home.ops.quote_name
    # As expressions, the columns have no declared type by which values would be converted.
    return _select(home, table, [f"+{quote(ROW)}.{quote(field.column)}" for field in table.fields])


def _declared(home: Any, field: Any) -> str:
    target = field
    while getattr(target, "remote_field", None) is not None:
        target = target.target_field
    collation = getattr(target, "db_collation", None)
    declared = f"{home.ops.quote_name(field.column)} {field.db_type(home)}"
    return f"{declared} COLLATE {home.ops.quote_name(collation)}" if collation else declared


def _whole_tables(sql: str, home: Any) -> Iterator[Table]:
    """Yield the tables that ``home`` has whole, and the statement names."""
    sharded = registry.tables()
    for model in apps.get_models(include_auto_created=True):
        name = model._meta.db_table
        is_whole = name not in sharded and (home.is_door or reference_models.is_reference(model))
        if is_whole and home.ops.quote_name(name) in sql:
            yield Table(name, tuple(model._meta.concrete_fields), None)

"""
Which triggers each table is to have, and those that it has.

The form ``row`` asks before each row is written: the least for statements of one row. The form ``statement`` asks once
for each statement, about the rows that it has written: much less for statements of many. A partitioned table has the
form ``row`` in any case, since the other would not see what is written to a partition by its own name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

ROW: Final = "row"
STATEMENT: Final = "statement"
FORMS: Final = (ROW, STATEMENT)

#: Triggers of one kind fire in the order of their names, and these are to see the row as it will be stored.
PREFIX: Final = "zz_sharding_fence_"
_OPERATIONS: Final = {
    "insert": "REFERENCING NEW TABLE AS new_rows",
    "update": "REFERENCING OLD TABLE AS old_rows NEW TABLE AS new_rows",
    "delete": "REFERENCING OLD TABLE AS old_rows",
}


class Table(NamedTuple):
    """A table of a sharded model as a database has it."""

    oid: int
    #: With its schema, quoted.
    name: str
    is_partitioned: bool
    is_partition: bool
    #: Columns of the primary key, in its order.
    key: tuple[str, ...]


class Trigger(NamedTuple):
    """What is compared of a trigger."""

    name: str
    function: str
    arguments: tuple[str, ...]


def tables(cursor: Any, names: Mapping[str, str]) -> Iterator[tuple[Table, str]]:
    """
    Yield those of some tables that exist and have a bucket, and their partitions, with the form of each.

    Args:
        names: {table: form}.
    """
    cursor.execute(_TABLES, [list(names)])
    for asked, oid, name, kind, is_partition, key in cursor.fetchall():
        table = Table(oid, name, kind == "p", is_partition, tuple(key or ()))
        yield table, ROW if table.is_partitioned or is_partition else names[asked]


def wanted(table: Table, form: str) -> list[Trigger]:
    """Return the triggers that a table is to have."""
    truncate = Trigger(f"{PREFIX}truncate", "sharding_fence_truncate", ())
    if table.is_partition:
        # PostgreSQL gives it those of the rows.
        return [truncate]
    return [
        *(Trigger(f"{PREFIX}{form}_{each}", f"sharding_fence_{form}_{each}", table.key) for each in _OPERATIONS),
        truncate,
    ]


def existing(cursor: Any, schema: str) -> dict[tuple[int, str], list[Trigger]]:
    """Return the triggers of all tables, by oid and name with its schema; those that partitions inherit left out."""
    cursor.execute(_TRIGGERS, [f"{PREFIX}%", schema])
    found: dict[tuple[int, str], list[Trigger]] = {}
    for oid, table, name, function, arguments in cursor.fetchall():
        given = tuple(bytes(arguments).decode().split("\0")[:-1])
        found.setdefault((oid, table), []).append(Trigger(name, function, given))
    return found


def creation(table: Table, trigger: Trigger, schema: str) -> str:
    """Return the statement that makes a trigger, or replaces it."""
    operation = trigger.name.rpartition("_")[2]
    arguments = ", ".join("'" + each.replace("'", "''") + "'" for each in trigger.arguments)
    if operation == "truncate":
        when = f"BEFORE TRUNCATE ON {table.name} FOR EACH STATEMENT"
    elif trigger.name == f"{PREFIX}{ROW}_{operation}":
        when = f"BEFORE {operation.upper()} ON {table.name} FOR EACH ROW"
    else:
        when = f"AFTER {operation.upper()} ON {table.name} {_OPERATIONS[operation]} FOR EACH STATEMENT"
    return f"CREATE OR REPLACE TRIGGER {trigger.name} {when} EXECUTE FUNCTION {schema}.{trigger.function}({arguments})"


_TABLES: Final = """
WITH asked AS (
    SELECT name, to_regclass(quote_ident(name))::oid AS oid FROM unnest(%s::text[]) AS name
), found AS (
    SELECT name, oid FROM asked WHERE oid IS NOT NULL
    UNION
    SELECT name, tree.relid::oid FROM asked, pg_partition_tree(asked.oid::regclass) AS tree WHERE asked.oid IS NOT NULL
)
SELECT f.name, c.oid, format('%%I.%%I', n.nspname, c.relname), c.relkind, c.relispartition, (
    SELECT array_agg(a.attname::text ORDER BY part.place)
    FROM pg_constraint AS k, unnest(k.conkey) WITH ORDINALITY AS part (number, place), pg_attribute AS a
    WHERE k.conrelid = c.oid AND k.contype = 'p' AND a.attrelid = c.oid AND a.attnum = part.number)
FROM found AS f JOIN pg_class AS c ON c.oid = f.oid JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p') AND EXISTS (
    SELECT FROM pg_attribute AS b WHERE b.attrelid = c.oid AND b.attname = 'bucket' AND NOT b.attisdropped)
ORDER BY 3
"""

_TRIGGERS: Final = """
SELECT c.oid, format('%%I.%%I', n.nspname, c.relname), t.tgname, p.proname, t.tgargs
FROM pg_trigger AS t
JOIN pg_class AS c ON c.oid = t.tgrelid JOIN pg_namespace AS n ON n.oid = c.relnamespace
JOIN pg_proc AS p ON p.oid = t.tgfoid
WHERE t.tgname LIKE %s AND t.tgparentid = 0 AND t.tgenabled = 'O' AND p.pronamespace = to_regnamespace(%s)
ORDER BY 2, 3
"""

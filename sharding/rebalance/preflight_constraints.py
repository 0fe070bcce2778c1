"""
Before the first move: which constraints of one shard's tables concern rows of several buckets.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from sharding import reference_models, registry
from sharding.rebalance.finding import Finding, error, listed, warning
from sharding.rebalance.sessions import Session
from sharding.registry import Entry

FOREIGN_KEYS = """
SELECT c.relname::text, conname::text, ARRAY(
    SELECT attname::text FROM unnest(conkey) AS number JOIN pg_attribute ON attrelid = c.oid AND attnum = number
), r.relname::text
FROM pg_constraint JOIN pg_class c ON c.oid = conrelid JOIN pg_class r ON r.oid = confrelid
WHERE contype = 'f' AND conparentid = 0 AND pg_table_is_visible(c.oid)
  AND (c.relname = ANY(%s) OR r.relname = ANY(%s)) AND NOT c.relispartition AND NOT r.relispartition
ORDER BY 1, 2
"""
# A column of 0 is an expression.
UNIQUE = """
SELECT c.relname::text, i.relname::text, ARRAY(
    SELECT attname::text FROM unnest(indkey[0:indnkeyatts - 1]) AS number
    JOIN pg_attribute ON attrelid = c.oid AND attnum = number WHERE number > 0
)
FROM pg_index JOIN pg_class c ON c.oid = indrelid JOIN pg_class i ON i.oid = indexrelid
WHERE (indisunique OR indisexclusion) AND c.relname = ANY(%s) AND NOT c.relispartition AND pg_table_is_visible(c.oid)
ORDER BY 1, 2
"""


def found(session: Session) -> Iterator[Finding]:
    """Yield what may keep rows of a bucket from going to another shard, or from leaving this one."""
    by_table = {entry.table: entry for entry in registry.entries()}
    yield from of_foreign_keys(session, by_table)
    yield from of_unique_constraints(session, by_table)


def of_foreign_keys(session: Session, by_table: dict[str, Entry]) -> Iterator[Finding]:
    names = sorted(by_table)
    for table, name, columns, target in session.connection.execute(FOREIGN_KEYS, [names, names]).fetchall():
        where = f"The foreign key {name} of {table} on {session.alias!r}"
        if table not in by_table:
            yield error(
                "foreign keys",
                f"{where} refers to the sharded table {target}, whose rows could not leave that shard. Drop it: "
                f"Django's db_constraint=False keeps the field.",
            )
        elif target in by_table:
            if not _stays_in_bucket(by_table[table], by_table[target], columns):
                yield error(
                    "foreign keys",
                    f"{where} refers to rows of {target} that may be in another bucket, and so on another shard. Give "
                    f"both tables the same shard key, or drop it: Django's db_constraint=False keeps the field.",
                )
        elif target not in reference_models.tables():
            yield error(
                "foreign keys",
                f"{where} refers to {target}, which is neither sharded nor a reference table, so that its rows may be "
                f"missing where the bucket goes. Make it a reference model, or drop the foreign key: Django's "
                f"db_constraint=False keeps the field.",
            )


def of_unique_constraints(session: Session, by_table: dict[str, Entry]) -> Iterator[Finding]:
    rows = session.connection.execute(UNIQUE, [sorted(by_table)]).fetchall()
    for table, index, columns in rows:
        entry = by_table[table]
        if not _telling(entry).intersection(columns) and not _is_unique_everywhere(entry, columns):
            yield warning(
                "unique",
                f"{index} makes rows of {table} unique on {session.alias!r}, over all of its buckets and no others. If "
                f"two shards have the same value of {listed(columns) or 'its expression'}, the bucket of one cannot "
                f"move to the other. Add the shard key to it, or declare a unique lookup.",
            )


def _stays_in_bucket(entry: Entry, other: Entry, columns: Collection[str]) -> bool:
    references = {field.column: field for field in entry.references.values()}
    if any(column in references for column in columns):
        return True
    field: Any = entry.key_field
    return entry.family == other.family and field.column in columns


def _telling(entry: Entry) -> set[str]:
    """Return the columns of which each says which bucket its row is in."""
    fields: list[Any] = [entry.model._meta.get_field(attname) for attname in entry.columns]
    return {registry.BUCKET_COLUMN, *(str(field.column) for field in fields)}


def _is_unique_everywhere(entry: Entry, columns: Collection[str]) -> bool:
    """Return whether a lookup keeps the values of some columns unique over all shards."""
    options: Any = entry.model._meta
    unique = ({options.get_field(name).column for name in each.attnames} for each in entry.lookups if each.unique)
    return any(each.issubset(columns) for each in unique)

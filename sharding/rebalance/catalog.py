"""
What a database's catalog says of tables: plain rows, by table.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, LiteralString

from sharding.rebalance.sessions import Session

# A user's type has another number on every server, and arrays and composites have those numbers in their binary form.
# From 16384 on, numbers are given to what a user has made.
COLUMNS = """
SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), format_type(a.atttypid, -1),
       CASE WHEN a.attcollation = 0 THEN ''
            WHEN o.collname = 'default' THEN (
                SELECT concat_ws(' ', 'default:', datcollate, to_jsonb(d)->>'datlocprovider',
                                 coalesce(to_jsonb(d)->>'datlocale', to_jsonb(d)->>'daticulocale'))
                FROM pg_database d WHERE datname = current_database())
            ELSE concat_ws(' ', o.collname, o.collprovider, o.collcollate, o.collisdeterministic) END,
       NOT a.attnotnull,
       CASE WHEN a.attgenerated = '' THEN '' ELSE pg_get_expr(d.adbin, d.adrelid) END,
       a.attidentity,
       b.typsend <> 0 AND (b.oid < 16384 OR b.typtype = 'e' OR b.typtype = 'b' AND b.typelem = 0),
       CASE WHEN b.typname IN ('json', 'jsonb') THEN 'json'
            WHEN b.typtype = 'c' OR b.typcategory = 'A' THEN 'unfit' ELSE 'plain' END
FROM pg_class c
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
JOIN LATERAL (
    WITH RECURSIVE based AS (
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t WHERE t.oid = a.atttypid
        UNION ALL
        SELECT t.oid, t.typtype, t.typbasetype FROM pg_type t JOIN based ON t.oid = based.typbasetype
    )
    SELECT t.* FROM based JOIN pg_type t ON t.oid = based.oid WHERE based.typtype <> 'd'
) b ON true
LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
LEFT JOIN pg_collation o ON o.oid = a.attcollation
WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
ORDER BY c.relname, a.attname
"""

PRIMARY_KEYS = """
SELECT c.relname, array_agg(a.attname::text ORDER BY place)
FROM pg_class c
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'p'
CROSS JOIN LATERAL unnest(k.conkey) WITH ORDINALITY AS part(number, place)
JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = part.number
WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
GROUP BY c.relname
"""

FOREIGN_KEYS = """
SELECT c.relname, k.conname,
       (SELECT array_agg(a.attname::text ORDER BY place) FROM unnest(k.conkey) WITH ORDINALITY AS part(number, place)
        JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = part.number),
       r.relname,
       (SELECT array_agg(a.attname::text ORDER BY place) FROM unnest(k.confkey) WITH ORDINALITY AS part(number, place)
        JOIN pg_attribute a ON a.attrelid = r.oid AND a.attnum = part.number),
       k.confdeltype
FROM pg_class c
JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype = 'f' AND k.conparentid = 0
JOIN pg_class r ON r.oid = k.confrelid
WHERE c.relname = ANY(%s) AND c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid) AND r.relname = ANY(%s)
ORDER BY c.relname, k.conname
"""


VIEWS = (
    "SELECT relname::text FROM pg_class WHERE relname = ANY(%s) AND relkind IN ('v', 'm') AND pg_table_is_visible(oid)"
)


def views(session: Session, names: Collection[str]) -> frozenset[str]:
    """Return which of some names are views: those of sharded models that Django does not manage."""
    return frozenset(name for (name,) in session.connection.execute(VIEWS, [list(names)]).fetchall())


def columns(session: Session, tables: Collection[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the facts of a tables.Column, by table; in the order of their names."""
    return _by_table(session, COLUMNS, list(tables))


def primary_keys(session: Session, tables: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Return the columns of the primary keys, in their order."""
    return {name: tuple(rows[0][0]) for name, rows in _by_table(session, PRIMARY_KEYS, list(tables)).items()}


def foreign_keys(session: Session, tables: Collection[str]) -> dict[str, list[tuple[Any, ...]]]:
    """Return the facts of a tables.ForeignKey, by table, of those between two of the tables."""
    found = _by_table(session, FOREIGN_KEYS, list(tables), list(tables))
    return {
        name: [tuple(tuple(fact) if isinstance(fact, list) else fact for fact in row) for row in rows]
        for name, rows in found.items()
    }


def encoding(session: Session) -> str:
    """Return in which encoding the database keeps text."""
    ((found,),) = session.connection.execute("SHOW server_encoding").fetchall()
    return str(found)


def _by_table(session: Session, query: LiteralString, *params: list[str]) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for table, *facts in session.connection.execute(query, params).fetchall():
        found.setdefault(table, []).append(tuple(facts))
    return found

"""
A system check of what the control database has stored over sharded tables, W079: views, functions, and triggers of
global tables.

They see the rows of that database alone, and a statement that uses them names no sharded table, so it is not refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from django.core.checks import CheckMessage, Warning
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from sharding import conf, registry
from sharding.model_checks.subjects import AppConfigs

#: Views over views, too: what each of them reads in the end.
VIEWS: Final = """
WITH RECURSIVE reads (oid, name) AS (
    SELECT c.oid, c.relname FROM pg_class AS c
    WHERE c.relname = ANY (%s) AND c.relkind IN ('r', 'p') AND pg_table_is_visible(c.oid)
    UNION
    SELECT r.ev_class, reads.name FROM reads
    JOIN pg_depend AS d ON d.refclassid = 'pg_class'::regclass AND d.refobjid = reads.oid
    JOIN pg_rewrite AS r ON d.classid = 'pg_rewrite'::regclass AND r.oid = d.objid AND r.ev_class <> reads.oid
)
SELECT DISTINCT 'view ' || v.relname, v.relname::text, reads.name::text FROM reads
JOIN pg_class AS v ON v.oid = reads.oid AND v.relkind IN ('v', 'm') ORDER BY 1, 3
"""
#: Text is all that is known of them. A trigger of a sharded table runs where its rows are, and is none of this.
FUNCTIONS: Final = r"""
SELECT DISTINCT CASE WHEN t.oid IS NULL THEN 'function ' || p.proname
                ELSE format('trigger %%s of %%s', t.tgname, t.tgrelid::regclass) END, p.proname::text, name
FROM unnest(%s::text[]) AS name
JOIN pg_proc AS p ON p.prosrc ~* ('(^|[^\w$])' || regexp_replace(name, '([^\w])', '\\\1', 'g') || '($|[^\w$])')
JOIN pg_namespace AS n ON n.oid = p.pronamespace AND n.nspname NOT IN ('pg_catalog', 'information_schema')
LEFT JOIN pg_trigger AS t ON t.tgfoid = p.oid AND NOT t.tgisinternal
LEFT JOIN pg_class AS c ON c.oid = t.tgrelid
WHERE p.proname NOT LIKE 'sharding\_%%' AND (c.oid IS NULL OR c.relname <> ALL (%s))
AND (c.oid IS NOT NULL OR p.prorettype <> 'trigger'::regtype)
AND NOT EXISTS (SELECT FROM pg_depend AS e WHERE e.objid = p.oid AND e.deptype = 'e')
ORDER BY 1, 3
"""


def check_stored_code(
    app_configs: AppConfigs, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Return a warning for each view, function and trigger of the control database that names a sharded table."""
    connection: Any = connections[DEFAULT_DB_ALIAS]
    if conf.problems() or DEFAULT_DB_ALIAS not in (databases or ()) or connection.vendor != "postgresql":
        return []
    # Another ENGINE is E015.
    if not hasattr(connection, "sharded_statements"):
        return []
    tables = sorted(registry.tables())
    found: list[tuple[str, str, str]] = []
    # A database that does not answer is E039, which check_stored_cluster() reports.
    with suppress(DatabaseError), connection.sharded_statements(), connection.cursor() as cursor:
        cursor.execute(VIEWS, [tables])
        # A view may have a sharded model of its own, and is asked on every shard then.
        found += [row for row in cursor.fetchall() if row[1] not in registry.tables()]
        cursor.execute(FUNCTIONS, [tables, tables])
        found += cursor.fetchall()
    return [_finding(what, table) for what, _, table in found]


def _finding(what: str, table: str) -> CheckMessage:
    label = registry.tables()[table]
    return Warning(
        f"The {what} in the control database names {table}, a table of the sharded model {label}. It sees the rows of "
        f"the control database only, and nothing refuses a statement that uses it.",
        hint="Ask every shard, by fan_out() or aggregator.raw(), or drop it. A view may have a ShardedModel with "
        "managed = False: it is then asked where the rows are.",
        id="sharding.W079",
    )

"""
Before the first move: what one shard's tables are, to whom they belong, and what happens when they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any, LiteralString

from sharding import registry
from sharding.fence import installation
from sharding.fence.triggers import PREFIX
from sharding.rebalance.finding import Finding, error, listed, warning
from sharding.rebalance.sessions import Session

#: What a mover reads and writes beside the sharded tables.
OWN_TABLES = ("sharding_dirty", "sharding_fence", "sharding_identity", "sharding_progress")

#: The tables that are asked for and exist, and their partitions. Views have no rows of their own to move.
NAMED: LiteralString = """
WITH asked AS (
    SELECT name, pg_class.oid FROM unnest(%s::text[]) AS name
    JOIN pg_class ON pg_class.oid = to_regclass(quote_ident(name)) AND relkind NOT IN ('v', 'm')
), named AS (
    SELECT name, oid FROM asked WHERE oid IS NOT NULL
    UNION
    SELECT name, tree.relid::oid FROM asked, pg_partition_tree(asked.oid::regclass) AS tree WHERE asked.oid IS NOT NULL
)
"""
RIGHTS = """
SELECT name, ARRAY(SELECT wanted FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE']) AS wanted
                   WHERE NOT has_table_privilege(oid, wanted)),
       (SELECT pg_has_role(relowner, 'USAGE') FROM pg_class WHERE pg_class.oid = named.oid)
FROM named ORDER BY name
"""
HIDDEN = "SELECT DISTINCT name FROM named WHERE row_security_active(oid) ORDER BY name"
TRIGGERS = """
SELECT DISTINCT name, tgname::text FROM named JOIN pg_trigger AS t ON tgrelid = named.oid
JOIN pg_proc AS p ON p.oid = tgfoid
WHERE NOT tgisinternal AND tgenabled IN ('O', 'A') AND NOT starts_with(tgname, %s)
AND NOT 'sharding.mover' = ANY (regexp_split_to_array(pg_get_triggerdef(t.oid) || ' ' || p.prosrc, '[^a-z._]+'))
ORDER BY 1, 2
"""
RULES = """
SELECT DISTINCT name, rulename::text FROM named JOIN pg_rewrite ON ev_class = named.oid
WHERE ev_enabled IN ('O', 'A') ORDER BY 1, 2
"""
# Domains over oid, such as the type lo, say so themselves.
LARGE_OBJECTS = """
SELECT DISTINCT name, attname::text FROM named JOIN pg_attribute ON attrelid = named.oid
JOIN pg_type ON pg_type.oid = atttypid
WHERE attnum > 0 AND NOT attisdropped AND 'oid'::regtype IN (atttypid, typbasetype) ORDER BY 1, 2
"""


def found(session: Session) -> Iterator[Finding]:
    """Yield what hinders moves from or to one shard."""
    names = sorted(registry.tables())
    yield from of_fence(session)
    yield from of_rights(session, (*names, *OWN_TABLES))
    yield from of_row_security(session, names)
    yield from of_triggers(session, names)
    yield from of_rules(session, names)
    yield from of_large_objects(session, names)


def of_fence(session: Session) -> Iterator[Finding]:
    if not _exist(session, ["sharding_fence"]):
        yield error(
            "fence", f"{session.alias!r} has no table sharding_fence. Run `manage.py migrate_all`, which makes it."
        )
        return
    lack = installation.inspect(session.connection)
    if lack.functions:
        yield error(
            "fence",
            f"The fence of {session.alias!r} is missing or of another release than this one. Run "
            f"`manage.py migrate_all`, which brings it up to date.",
        )
    if lack.tables:
        yield error(
            "fence",
            f"The triggers that keep writers from buckets which have moved are not as they should be on "
            f"{session.alias!r}: those of {listed(lack.tables)}. Run `manage.py migrate_all`, which makes them.",
        )


def of_rights(session: Session, names: Collection[str]) -> Iterator[Finding]:
    rows = _asked(session, RIGHTS, names)
    ((role,),) = session.connection.execute("SELECT current_user").fetchall()
    for name, missing, _ in rows:
        if missing:
            yield error(
                "rights",
                f"The role {role!r} lacks {', '.join(missing)} on {name} of {session.alias!r}. Grant it what it lacks.",
            )
    foreign = [name for name, _, owns in rows if not owns and name in registry.tables()]
    if foreign:
        yield warning(
            "rights",
            f"The role {role!r} does not own {listed(foreign)} on {session.alias!r}, so that it cannot VACUUM what a "
            f"move has deleted there. Make it the owner, or leave that to autovacuum.",
        )


def of_row_security(session: Session, names: Collection[str]) -> Iterator[Finding]:
    for (name,) in _asked(session, HIDDEN, names):
        yield error(
            "row security",
            f"Row level security is active for {name} on {session.alias!r}, so that rows may be invisible to a move, "
            f"and would not be copied. Let its role own the table without FORCE ROW LEVEL SECURITY, or bypass it.",
        )


def of_triggers(session: Session, names: Collection[str]) -> Iterator[Finding]:
    for name, trigger in _asked(session, TRIGGERS, names, PREFIX):
        yield warning(
            "triggers",
            f"{name} has the trigger {trigger} on {session.alias!r}, which fires for the rows that a move writes or "
            f"deletes there, too. Let it do nothing where current_setting('sharding.mover', true) is not empty, if it "
            f"should not.",
        )


def of_rules(session: Session, names: Collection[str]) -> Iterator[Finding]:
    for name, rule in _asked(session, RULES, names):
        yield error(
            "rules",
            f"{name} has the rule {rule} on {session.alias!r}, which changes what statements write. Replace it by a "
            f"trigger, or drop it.",
        )


def of_large_objects(session: Session, names: Collection[str]) -> Iterator[Finding]:
    for name, column in _asked(session, LARGE_OBJECTS, names):
        yield error(
            "large objects",
            f"{name}.{column} on {session.alias!r} is an oid, the number of a large object of that server, which does "
            f"not move. Store the bytes in a column of type bytea.",
        )


def _asked(session: Session, query: LiteralString, names: Collection[str], *params: Any) -> list[tuple[Any, ...]]:
    return session.connection.execute(NAMED + query, [list(names), *params]).fetchall()


def _exist(session: Session, names: Collection[str]) -> bool:
    return len(_asked(session, "SELECT name FROM named", names)) >= len(names)

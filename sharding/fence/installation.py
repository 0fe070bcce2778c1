"""
Put the fence into one database: functions, and triggers for the table of every sharded model.

Installing again changes only what differs, so that it takes no lock where nothing does: a renamed table, another
primary key or form, a model that is sharded no longer.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any, Final

from django.db import transaction

from sharding import conf, registry
from sharding.fence import triggers
from sharding.fence.functions import CHECKS
from sharding.fence.shown import SHOWN
from sharding.fence.trigger_functions import TRIGGER_FUNCTIONS

_FUNCTIONS: Final = (*CHECKS, *TRIGGER_FUNCTIONS, *SHOWN)
#: Changes with every word of the functions.
VERSION: Final = f"sharding fence {hashlib.sha256(''.join(_FUNCTIONS).encode()).hexdigest()[:16]}"


@dataclass(frozen=True, slots=True)
class Lack:
    """What a database's fence lacks to be as it should."""

    schema: str
    #: The functions are missing, or of another version.
    functions: bool
    #: The statements that make the triggers right, and the tables that they are about, with their schemas.
    statements: tuple[str, ...]
    tables: tuple[str, ...]

    def __bool__(self) -> bool:
        return self.functions or bool(self.statements)


#: Seconds for which writers may have to wait behind the one who waits.
LOCK_TIMEOUT: Final = 2.0
_GIVE_WAY: Final = (
    f"SELECT set_config('lock_timeout', '{round(LOCK_TIMEOUT * 1000)}ms', true) "
    "WHERE current_setting('lock_timeout') = '0'"
)


def is_possible(connection: Any) -> bool:
    """Return whether a database is of the kind that has fences, and migrated so far."""
    return connection.vendor == "postgresql" and _schema(connection) is not None


def is_installed(connection: Any) -> bool:
    """Return whether a fence of any version is in a database."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regproc(%s) IS NOT NULL", [f"{_schema(connection)}.sharding_fence_check"])
        return bool(cursor.fetchone()[0])


def install(connection: Any) -> tuple[str, ...]:
    """
    Install, or bring up to date, in one transaction; return the tables whose triggers were changed.

    A table whose triggers are made waits for its writers, and new ones wait for it: for LOCK_TIMEOUT seconds, unless
    the session has a lock_timeout.

    Raises:
        OperationalError: writers have held a table for longer.
    """
    with transaction.atomic(using=connection.alias), connection.sharded_statements():
        _execute(connection, _GIVE_WAY)
        # Two at a time would replace one function at the same time, which PostgreSQL refuses.
        _execute(connection, "SELECT pg_advisory_xact_lock(hashtextextended('sharding fence', 0))")
        lack = inspect(connection)
        if lack.functions:
            for statement in _FUNCTIONS:
                _execute(connection, statement.replace("@schema@", lack.schema))
            _execute(connection, f"COMMENT ON FUNCTION {lack.schema}.sharding_fence_check IS '{VERSION}'")
        for statement in lack.statements:
            _execute(connection, statement)
    return lack.tables


def inspect(connection: Any) -> Lack:
    """Return what the fence of a database lacks; the app `sharding` must be migrated there."""
    schema = _schema(connection)
    assert schema is not None, f"{connection.alias!r} has no table sharding_fence."
    chosen = conf.current().fence or {}
    forms = {each.table: chosen.get(each.label.lower(), chosen.get("default", "row")) for each in registry.entries()}
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT obj_description(to_regproc(%s), 'pg_proc')",
            [f"{schema}.sharding_fence_check"],
        )
        functions = cursor.fetchone()[0] != VERSION
        stored = triggers.existing(cursor, schema)
        wanted = {(table.oid, table.name): (table, form) for table, form in triggers.tables(cursor, forms)}
    statements: list[str] = []
    changed: list[str] = []
    for place in sorted({*stored, *wanted}, key=lambda each: each[1]):
        lines = _changes(place[1], stored.get(place, []), wanted.get(place), schema)
        if lines:
            statements += lines
            changed.append(place[1])
    return Lack(schema, functions, tuple(statements), tuple(changed))


def _changes(
    name: str, stored: list[triggers.Trigger], wanted: tuple[triggers.Table, str] | None, schema: str
) -> list[str]:
    due = [] if wanted is None else triggers.wanted(*wanted)
    kept = {trigger.name for trigger in due}
    lines = [triggers.creation(wanted[0], each, schema) for each in due if each not in stored] if wanted else []
    return lines + [f"DROP TRIGGER {each.name} ON {name}" for each in stored if each.name not in kept]


def _schema(connection: Any) -> str | None:
    """Return the schema, quoted, of the fence's table."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT quote_ident(nspname) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace "
            "WHERE c.oid = to_regclass('sharding_fence')"
        )
        row = cursor.fetchone()
    return None if row is None else str(row[0])


def _execute(connection: Any, statement: str) -> None:
    with connection.cursor() as cursor:
        # Without parameters, so that % is a character like any other.
        cursor.execute(statement)

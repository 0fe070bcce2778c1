"""
A statement that a shard refuses since it lacks a table or a column of a model: the cluster is half migrated.

The database says so in its own language, also of names that are misspelt. So the shard is asked what it has.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error, ProgrammingError
from django.db.models import Model

from sharding import conf, reference_models, registry, routing
from sharding.backends.database_errors import ShardNotMigrated
from sharding.backends.raw_sql import text_of
from sharding.commits import sessions

#: SQLSTATEs: undefined_table, undefined_column.
UNDEFINED = {"42P01", "42703"}
#: From the catalogs, without a lock: behind a migration that waits for this very transaction it would wait for ever.
COLUMNS = """
    SELECT name, attname FROM unnest(%s::text[]) AS name
    JOIN pg_attribute ON attrelid = to_regclass(name) AND attnum > 0 AND NOT attisdropped
"""


def explained(error: Exception, sql: Any, connection: Any) -> ShardNotMigrated | None:
    """
    Return what to raise instead of an error: None unless a shard lacks something of a model that the statement names.

    Migrations are left alone, which expect databases as they were.
    """
    return lacking(error, sql, connection) if routing.native_alias() is None else None


def lacking(error: Exception, sql: Any, connection: Any) -> ShardNotMigrated | None:
    """Return the same for a statement that was sent past the routing; ``sql`` at least names the table."""
    if not isinstance(error, ProgrammingError) or getattr(error.__cause__, "sqlstate", None) not in UNDEFINED:
        return None
    if connection.alias == DEFAULT_DB_ALIAS or connection.alias not in conf.current().shards:
        return None
    text, message = text_of(sql, connection), str(error)
    models = [model for model in _models() if _names(text, model._meta.db_table)]
    # Where the shard cannot be asked any more, the database's own error says enough.
    with suppress(Error):
        for model, missing in _missing(connection, models):
            told = [column for column in missing if _names(message, column)]
            if told or (not missing and _names(message, model._meta.db_table)):
                return _error(connection.alias, model, told)
    return None


def _models() -> Iterator[type[Model]]:
    yield from registry.models()
    yield from reference_models.models()


def _names(text: str, name: str) -> bool:
    return re.search(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text) is not None


def _missing(connection: Any, models: list[type[Model]]) -> Iterator[tuple[type[Model], list[str]]]:
    """Yield the models of which a shard lacks columns, with these: none of them where it lacks the table."""
    quoted = {connection.ops.quote_name(model._meta.db_table): model for model in models}
    found = _columns(connection.alias, list(quoted))
    for table, model in quoted.items():
        there = found.get(table, set())
        missing = [field.column for field in model._meta.local_concrete_fields if field.column not in there]
        if missing:
            yield model, [str(column) for column in missing] if there else []


def _columns(alias: str, tables: list[str]) -> dict[str, set[str]]:
    """Return the columns of those tables that there are."""
    found: dict[str, set[str]] = {}
    # The statement has aborted the transaction, if there is one.
    with sessions.session(alias) as cursor:
        cursor.execute(COLUMNS, [tables])
        for table, column in cursor.fetchall():
            found.setdefault(table, set()).add(column)
    return found


def _error(alias: str, model: type[Model], columns: list[str]) -> ShardNotMigrated:
    table, label = model._meta.db_table, model._meta.label
    kind = "reference" if reference_models.is_reference(model) else "sharded"
    what = f"no column {', '.join(map(repr, columns))} in the table {table!r}" if columns else f"no table {table!r}"
    return ShardNotMigrated(
        f"The shard {alias!r} has {what} of the {kind} model {label}: it is not migrated as this code expects. "
        f"`manage.py migrate_all --check` shows what is pending where, and `manage.py migrate_all` applies it.",
        model=label,
        alias=alias,
        table=table,
        columns=tuple(columns),
    )

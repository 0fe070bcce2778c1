"""
Check that equal keys are equal bytes (E031): the hash of a key sees bytes, a nondeterministic collation does not.

What counts is the column as it is in the database, whatever the model says; before the table exists, the model does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Final

from django.core.checks import CheckMessage, Error
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections
from django.db.models import Field

from sharding import conf, registry
from sharding.model_checks.subjects import AppConfigs, column_of, keyed_models, named

#: The column's type without its domain, and its collation.
COLUMN: Final = """
    SELECT coalesce(of_domain.typname, type.typname), collation_.collname, collation_.collisdeterministic
    FROM pg_attribute AS attribute
    JOIN pg_type AS type ON type.oid = attribute.atttypid
    LEFT JOIN pg_type AS of_domain ON of_domain.oid = type.typbasetype
    LEFT JOIN pg_collation AS collation_ ON collation_.oid = attribute.attcollation
    WHERE attribute.attrelid = to_regclass(%s) AND attribute.attname = %s AND NOT attribute.attisdropped
"""
NAMED_COLLATION: Final = "SELECT collisdeterministic FROM pg_collation WHERE oid = to_regcollation(%s)"
#: SQLite compares these bytes as they are.
BINARY: Final = "BINARY"


def check_collations(
    app_configs: AppConfigs, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Return an error for each shard key that a named database compares otherwise than by its bytes."""
    if conf.problems():
        return []
    physical = {DEFAULT_DB_ALIAS, *conf.current().shards}
    aliases = [alias for alias in databases or () if alias in physical]
    hashed = [field for model in keyed_models(app_configs) for field in _hashed_text(model)] if aliases else []
    found: list[CheckMessage] = []
    for alias in aliases:
        # A database that does not answer is E039, which check_stored_cluster() reports.
        with suppress(OperationalError):
            found += [error for field in hashed for error in _errors(alias, field)]
    return found


def _hashed_text(model: Any) -> Iterator[Field[Any, Any]]:
    """Yield the fields whose text is hashed: the key, and foreign keys to another model's key."""
    entry = registry.get(model)
    for attname in entry.columns:
        field = model._meta.get_field(attname)
        if entry.rule(attname) == "hash" and column_of(field).get_internal_type() in {"CharField", "TextField"}:
            yield field


def _errors(alias: str, field: Any) -> Iterator[CheckMessage]:
    reason = loose(connections[alias], field)
    if reason is None:
        return
    yield Error(
        f"The column of {named(field)} on {alias!r} {reason}, so that keys which are equal there have different "
        f"buckets.",
        hint="Give the field a deterministic collation, and keep keys in one spelling, for example in lower case.",
        obj=field,
        id="sharding.E031",
    )


def loose(connection: Any, field: Any) -> str | None:
    """Return why two different texts can be equal in this column, or None when they cannot."""
    if connection.vendor == "postgresql":
        return _loose_on_postgresql(connection, field)
    collation = field.db_parameters(connection).get("collation") or BINARY
    # Those that a project defines itself are as unknown as NOCASE and RTRIM are loose.
    return None if collation.upper() == BINARY else f"has the collation {collation!r}, which ignores differences"


def _loose_on_postgresql(connection: Any, field: Any) -> str | None:
    with connection.cursor() as cursor:
        cursor.execute(COLUMN, [connection.ops.quote_name(field.model._meta.db_table), field.column])
        kind, collation, deterministic = cursor.fetchone() or (None, None, None)
        if kind is None:
            kind, collation = field.db_type(connection), field.db_parameters(connection).get("collation")
            deterministic = True
            if collation:
                cursor.execute(NAMED_COLLATION, [connection.ops.quote_name(collation)])
                (deterministic,) = cursor.fetchone() or (True,)
    if kind == "citext":
        return "is of the type citext, which ignores case"
    if collation and not deterministic:
        return f"has the nondeterministic collation {collation!r}"
    return None

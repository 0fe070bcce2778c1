"""
Which collations sort text by code points, as Python does; each database is asked for its own once a process.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

from django.db.models.sql import Query

from aggregator.refusal import cannot_merge

#: The names by which PostgreSQL, its builtin provider and glibc call the order of code points.
CODE_POINTS = frozenset(
    {"C", "POSIX", "C.UTF-8", "C.UTF8", "C.utf8", "ucs_basic", "pg_c_utf8", "pg_unicode_fast", "PG_UNICODE_FAST"}
)
SQLITE_CODE_POINTS = "BINARY"

_defaults: dict[tuple[str, str], str] = {}
_deterministic: dict[tuple[str, str, str], bool] = {}


def require_code_points(query: Query, connections: Sequence[Any], collations: Iterable[str | None]) -> None:
    """
    Check that text in these collations (None: a database's own) is sorted by code points on every database.

    Raises:
        CannotMerge: one of them sorts otherwise.
    """
    for collation in collations:
        for connection in connections:
            name = collation or default_of(connection)
            if _is_code_points(connection, name):
                continue
            raise cannot_merge(
                query,
                f"text ordered under the collation {name}",
                "Order by Collate(…, 'C'), or limit the query to one shard key.",
            )


def require_equality(query: Query, connections: Sequence[Any], collations: Iterable[str | None]) -> None:
    """
    Check that text in these collations is equal only when it is the same.

    Raises:
        CannotMerge: one of them is nondeterministic: it takes different texts for equal.
    """
    for collation in collations:
        if collation is not None and not all(_is_deterministic(connection, collation) for connection in connections):
            raise cannot_merge(
                query,
                f"DISTINCT under the nondeterministic collation {collation}",
                "Select other fields, or limit the query to one shard key.",
            )


def require_same(query: Query, connections: Sequence[Any]) -> None:
    """
    Check that all databases compare text alike, which the smallest of their smallest values depends on.

    Raises:
        CannotMerge: their own collations differ.
    """
    found = {default_of(connection): connection.alias for connection in connections}
    if len(found) > 1:
        raise cannot_merge(
            query,
            f"text compared under different collations ({', '.join(sorted(found))})",
            "Create the databases of all shards with the same collation.",
        )


def default_of(connection: Any) -> str:
    """Return the name of the collation that a database gives its text."""
    if connection.vendor == "sqlite":
        return "BINARY"
    place = (connection.alias, connection.settings_dict["NAME"])
    if place not in _defaults:
        row = _ask(connection, "SELECT to_jsonb(d)::text FROM pg_database d WHERE datname = current_database()")
        _defaults[place] = _name(json.loads(row))
    return _defaults[place]


def _name(database: dict[str, Any]) -> str:
    # The columns depend on the server's version: providers came with 15, datlocale with 17.
    if database.get("datlocprovider", "c") == "c":
        return str(database["datcollate"])
    return str(database.get("datlocale") or database.get("daticulocale"))


def _is_code_points(connection: Any, collation: str) -> bool:
    if connection.vendor == "sqlite":
        return collation.upper() == SQLITE_CODE_POINTS
    return collation in CODE_POINTS


def _is_deterministic(connection: Any, collation: str) -> bool:
    if connection.vendor == "sqlite" or collation in CODE_POINTS:
        return _is_code_points(connection, collation)
    place = (connection.alias, connection.settings_dict["NAME"], collation)
    if place not in _deterministic:
        answer = _ask(
            connection, "SELECT bool_and(collisdeterministic) FROM pg_collation WHERE collname = %s", collation
        )
        _deterministic[place] = answer is not False
    return _deterministic[place]


def _ask(connection: Any, sql: str, *params: Any) -> Any:
    """
    Return the one value that a statement gives.

    The driver's cursor is used, so that a query sends the same statements as far as its caller can see, whether it is
    the first one of the process or not.
    """
    connection.cursor().close()
    with connection.wrap_database_errors, connection.connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return cursor.fetchone()[0]

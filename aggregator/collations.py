"""
Which collations sort text by code points, as Python does, and which are the same on every database.

Each database is asked once a process.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from django.db.models.sql import Query

from aggregator import executor
from aggregator.refusal import cannot_merge
from sharding.errors import ShardsDisagree
from sharding.operations.servers import VERSIONED, default_collation

T = TypeVar("T")

#: The names by which PostgreSQL, its builtin provider and glibc call the order of code points.
CODE_POINTS = frozenset(
    {"C", "POSIX", "C.UTF-8", "C.UTF8", "C.utf8", "ucs_basic", "pg_c_utf8", "pg_unicode_fast", "PG_UNICODE_FAST"}
)
SQLITE_CODE_POINTS = "BINARY"

COLLATE = re.compile(r'COLLATE "((?:[^"]|"")+)"')

#: The numbers of the encodings whose bytes are in the order of code points: SQL_ASCII, UTF8, LATIN1.
CODE_POINT_ENCODINGS = frozenset({0, 6, 8})

_databases: dict[tuple[str, str], dict[str, Any]] = {}
_deterministic: dict[tuple[str, str, str], bool] = {}
_compared: dict[tuple[str, str, str | None], str] = {}


def sort_by_code_points(connections: Sequence[Any], collation: str | None) -> bool:
    """Return whether every database sorts text in a collation (None: its own) by code points."""
    return all(_told(connections, lambda connection: _is_code_points(connection, collation or default_of(connection))))


def are_deterministic(connections: Sequence[Any], collation: str | None) -> bool:
    """Return whether text in a collation is equal only when it is the same: a database's own always is so."""
    if collation is None:
        return True
    return all(_told(connections, lambda connection: _is_deterministic(connection, collation)))


def require_same(query: Query, connections: Sequence[Any], collation: str | None = None) -> None:
    """
    Check that all databases compare text in a collation (None: their own) alike.

    Raises:
        CannotMerge: by that name they have different collations, or different versions of it.
    """
    if len(connections) < 2:
        return
    found = set(_told(connections, lambda connection: _compares_by(connection, collation)))
    if len(found) > 1:
        # Whoever mends it need not start this process again.
        _compared.clear()
        raise cannot_merge(
            query,
            f"text compared under different collations ({', '.join(sorted(found))})",
            "Give the databases of all shards the same collation, of the same version.",
            ShardsDisagree,
        )


def named_in(sql: str, fields: Iterable[Any]) -> set[str | None]:
    """Return the collations by which a statement over some fields may compare; None is the databases' own."""
    of_fields = {getattr(field, "db_collation", None) for field in fields}
    return {None, *of_fields, *(name.replace('""', '"') for name in COLLATE.findall(sql))}


def default_of(connection: Any) -> str:
    """Return the name of the collation that a database gives its text."""
    if connection.vendor == "sqlite":
        return "BINARY"
    return default_collation(_database(connection))


def _database(connection: Any) -> dict[str, Any]:
    """Return the row of a database in pg_database."""
    place = (connection.alias, connection.settings_dict["NAME"])
    if place not in _databases:
        row = _ask(connection, "SELECT to_jsonb(d)::text FROM pg_database d WHERE datname = current_database()")
        _databases[place] = json.loads(row)
    return _databases[place]


def _compares_by(connection: Any, collation: str | None) -> str:
    """Return what two databases have in common that compare text alike."""
    place = (connection.alias, connection.settings_dict["NAME"], collation)
    if connection.vendor == "sqlite":
        return collation or default_of(connection)
    if place not in _compared:
        found = _own(connection) if collation is None else _of_name(connection, collation)
        if found is None:
            # It is missing, of which the statement will complain.
            return str(collation)
        _compared[place] = found
    return _compared[place]


def _own(connection: Any) -> str:
    name = default_of(connection)
    if name in CODE_POINTS or connection.pg_version < VERSIONED:
        return name
    sql = (
        "SELECT concat_ws(' ', to_jsonb(d)->>'daticurules', pg_database_collation_actual_version(oid)) "
        "FROM pg_database d WHERE datname = current_database()"
    )
    return f"{name} {_ask(connection, sql)}".strip()


def _of_name(connection: Any, collation: str) -> str | None:
    sql = (
        "SELECT (SELECT to_jsonb(c) || jsonb_build_object('version', pg_collation_actual_version(oid)) "
        "FROM pg_collation c WHERE oid = to_regcollation(%s))::text"
    )
    row = _ask(connection, sql, connection.ops.quote_name(collation))
    if row is None:
        return None
    found = json.loads(row)
    # The columns depend on the server's version.
    locale = found.get("colllocale") or found.get("colliculocale") or found["collcollate"]
    parts = [collation, found["collprovider"], locale, found.get("collicurules"), found["version"]]
    parts.append("" if found["collisdeterministic"] else "nondeterministic")
    return " ".join(str(part) for part in parts if part)


def _is_code_points(connection: Any, collation: str) -> bool:
    if connection.vendor == "sqlite":
        return collation.upper() == SQLITE_CODE_POINTS
    # These collations compare bytes.
    return collation in CODE_POINTS and _database(connection)["encoding"] in CODE_POINT_ENCODINGS


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


class _Missing(Exception):
    """A database did not answer, and the answer that it is asked for can do without it."""


def _told(connections: Sequence[Any], tell: Callable[[Any], T]) -> Iterator[T]:
    """Yield what is told of each database, without those of shards that are missing."""
    for connection in executor.asking_now().present(connections):
        with suppress(_Missing):
            yield tell(connection)


def _ask(connection: Any, sql: str, *params: Any) -> Any:
    """
    Return the one value that a statement gives.

    The driver's cursor is used, so that a query sends the same statements as far as its caller can see, whether it is
    the first one of the process or not.
    """

    def ask() -> Any:
        connection.cursor().close()
        with connection.wrap_database_errors, connection.connection.cursor() as cursor:
            cursor.execute(sql, params or None)
            return cursor.fetchone()

    row = executor.step(executor.asking_now(), connection, ask)
    if row is None:
        raise _Missing
    return row[0]

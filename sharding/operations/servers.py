"""
What the servers of a cluster must have in common so that their answers fit together, and where they differ.

Facts are read from the databases themselves (PostgreSQL): what a column's collation is there, whatever the model says.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from django.utils import timezone

from sharding import reference_models, registry

#: Since this version a server tells the version of a database's own collation.
VERSIONED = 150000
DATABASE = (
    "SELECT to_jsonb(d)::text, pg_encoding_to_char(encoding) FROM pg_database d WHERE datname = current_database()"
)
OWN_VERSION = "SELECT pg_database_collation_actual_version(oid) FROM pg_database WHERE datname = current_database()"
#: Columns under another collation than their database's own.
COLUMNS = """
    SELECT class.relname || '.' || attribute.attname, to_jsonb(collation_)::text,
           pg_collation_actual_version(collation_.oid)
    FROM pg_attribute AS attribute
    JOIN pg_class AS class ON class.oid = attribute.attrelid
    JOIN pg_collation AS collation_ ON collation_.oid = attribute.attcollation
    WHERE attribute.attrelid = ANY (SELECT to_regclass(name) FROM unnest(%s::text[]) AS name)
      AND attribute.attnum > 0 AND NOT attribute.attisdropped AND collation_.collprovider <> 'd'
    ORDER BY 1
"""
#: A digest of a zone's local times; no row where the server does not know the zone.
LOCAL_TIMES = """
    SELECT (SELECT md5(string_agg((moment AT TIME ZONE zone.name)::text, ',' ORDER BY moment))
            FROM generate_series('1970-01-01Z'::timestamptz, '2070-01-01Z', '6 days') AS moment)
    FROM pg_timezone_names AS zone WHERE zone.name = %s
"""
PROVIDERS = {"b": "builtin", "c": "libc", "i": "icu"}


@dataclass(frozen=True, slots=True)
class Collation:
    """One collation of one database."""

    #: Its provider, its locale and its rules: what two databases have in common that sort text alike.
    definition: str
    #: The version of the library when the collation was made, and today; None where it has none.
    recorded: str | None = None
    actual: str | None = None

    def __str__(self) -> str:
        return " ".join(filter(None, (self.definition, self.actual)))

    @property
    def outdated(self) -> bool:
        return self.recorded is not None and self.actual is not None and self.recorded != self.actual


@dataclass(frozen=True, slots=True)
class Server:
    """What is known of one database and its server."""

    version: int
    encoding: str
    collation: Collation
    #: {table.column: collation}, for columns of sharded and reference models with another one than the database's own.
    columns: Mapping[str, Collation]
    #: The digest of the local times of TIME_ZONE; None where the server does not know it.
    local_times: str | None

    @property
    def major(self) -> int:
        return self.version // 10000


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that the databases should have in common and have not, or that is wrong with one."""

    id: str
    message: str
    hint: str


def server_of(connection: Any) -> Server | None:
    """Return what is known of the database of a connection; None for SQLite, which is the same everywhere."""
    if connection.vendor != "postgresql":
        return None
    tables = [connection.ops.quote_name(name) for name in (*registry.tables(), *reference_models.tables())]
    with connection.cursor() as cursor:
        cursor.execute(DATABASE)
        row, encoding = cursor.fetchone()
        actual = None
        if connection.pg_version >= VERSIONED:
            cursor.execute(OWN_VERSION)
            (actual,) = cursor.fetchone()
        cursor.execute(COLUMNS, [tables])
        columns = {column: _named(json.loads(found), version) for column, found, version in cursor.fetchall()}
        cursor.execute(LOCAL_TIMES, [timezone.get_default_timezone_name()])
        (local_times,) = cursor.fetchone() or (None,)
    return Server(connection.pg_version, encoding, _own(json.loads(row), actual), columns, local_times)


def default_collation(database: Mapping[str, Any]) -> str:
    """Return the name of a database's own collation, from its row in pg_database."""
    # The columns depend on the server's version: providers came with 15, datlocale with 17.
    if database.get("datlocprovider", "c") == "c":
        return str(database["datcollate"])
    return str(database.get("datlocale") or database.get("daticulocale"))


def differences(servers: Mapping[str, Server]) -> Iterator[Difference]:
    """Yield what the databases of a cluster, by alias, do not have in common, and what is outdated on one."""
    versions = _groups({alias: str(each.major) for alias, each in servers.items()})
    if len(versions) > 1:
        yield Difference(
            "sharding.W070",
            f"The shards are on different major versions of PostgreSQL: {_listed(versions)}.",
            "Upgrade them to one version. Until then, answers depend on the shard where versions compute or sort "
            "differently.",
        )
    encodings = _groups({alias: each.encoding for alias, each in servers.items()})
    if len(encodings) > 1:
        yield Difference(
            "sharding.W071",
            f"The databases of the shards have different encodings: {_listed(encodings)}.",
            "Create them all with UTF8. What one of them can store, another one refuses.",
        )
    yield from _collations(servers)
    for alias, each in servers.items():
        yield from _outdated(alias, each)
    times = _groups({alias: each.local_times or "" for alias, each in servers.items()})
    if len(times) > 1:
        zone = timezone.get_default_timezone_name()
        yield Difference(
            "sharding.W075",
            f"The servers of the shards disagree on the local times of {zone!r} (TIME_ZONE): "
            f"{' against '.join(', '.join(aliases) for aliases in times.values())}.",
            "Update their time zone data (tzdata) to one version. Until then, the days and hours that they compute may "
            "differ.",
        )


def _collations(servers: Mapping[str, Server]) -> Iterator[Difference]:
    remedy = (
        "on servers with the same version of its library. Until then, queries that sort this text over several shards "
        "raise CannotMerge."
    )
    own = _groups({alias: str(each.collation) for alias, each in servers.items()})
    if len(own) > 1:
        yield Difference(
            "sharding.W072",
            f"The databases of the shards have different collations: {_listed(own)}.",
            f"Create them with one collation, {remedy}",
        )
    for column in sorted({column for each in servers.values() for column in each.columns}):
        found = {alias: str(each.columns.get(column, "the database's own")) for alias, each in servers.items()}
        if len(_groups(found)) > 1:
            yield Difference(
                "sharding.W073",
                f"The column {column} has different collations: {_listed(_groups(found))}.",
                f"Give it one collation, {remedy}",
            )


def _outdated(alias: str, server: Server) -> Iterator[Difference]:
    if server.collation.outdated:
        yield Difference(
            "sharding.W074",
            f"The database of {alias!r} was made with version {server.collation.recorded} of its collation "
            f"{server.collation.definition}, and its server has {server.collation.actual} today.",
            "Its indexes of text may be in the wrong order. Run REINDEX DATABASE and then ALTER DATABASE … REFRESH "
            "COLLATION VERSION.",
        )
    for each in dict.fromkeys(each for each in server.columns.values() if each.outdated):
        columns = ", ".join(column for column, collation in server.columns.items() if collation == each)
        yield Difference(
            "sharding.W074",
            f"The collation {each.definition} of {columns} on {alias!r} was made with version {each.recorded}, and the "
            f"server has {each.actual} today.",
            "Indexes of these columns may be in the wrong order. REINDEX them, and then run ALTER COLLATION … REFRESH "
            "VERSION.",
        )


def _own(row: Mapping[str, Any], actual: str | None) -> Collation:
    provider = PROVIDERS[row.get("datlocprovider", "c")]
    rules = row.get("daticurules")
    return Collation(
        " ".join(filter(None, (provider, default_collation(row), rules))), row.get("datcollversion"), actual
    )


def _named(row: Mapping[str, Any], actual: str | None) -> Collation:
    locale = row.get("colllocale") or row.get("colliculocale") or row["collcollate"]
    loose = None if row["collisdeterministic"] else "nondeterministic"
    parts = (row["collname"], PROVIDERS[row["collprovider"]], locale, row.get("collicurules"), loose)
    # A collation is often called as its locale.
    return Collation(" ".join(dict.fromkeys(filter(None, parts))), row["collversion"], actual)


def _groups(values: Mapping[str, str]) -> dict[str, list[str]]:
    """Return {value: aliases}, those with most aliases first."""
    found: dict[str, list[str]] = {}
    for alias, value in values.items():
        found.setdefault(value, []).append(alias)
    return dict(sorted(found.items(), key=lambda item: -len(item[1])))


def _listed(groups: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{value} ({', '.join(aliases)})" for value, aliases in groups.items())

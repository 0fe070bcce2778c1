"""
System checks of the stored cluster, E032 to E039, W044, W045, W052, E053 and W070 to W075: do the settings, the control
database and the shards agree, and the shards among themselves?

They run where Django allows a check to ask databases: `check --database default --database shard_a`, `migrate`, and the
test runner. A database that was not named is not asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Error, Info, Warning
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from sharding import conf, reference_copies, reference_models, stored_cluster
from sharding.model_checks.subjects import AppConfigs
from sharding.operations import restoration
from sharding.operations.servers import Server, differences, server_of
from sharding.stored_cluster import StoredCluster

#: Of max_connections: with fewer prepared transactions than this, a burst of commits meets the limit.
FEWEST_PREPARED = 0.25


def check_stored_cluster(
    app_configs: AppConfigs, databases: Sequence[str] | None = None, **kwargs: Any
) -> list[CheckMessage]:
    """Return what is wrong between the settings, the control database and the shards, as far as they are named."""
    if conf.problems():
        return []
    shards = conf.current().shards
    named = [alias for alias in databases or () if alias in {DEFAULT_DB_ALIAS, *shards} and alias in connections]
    found: list[CheckMessage] = []
    expected: StoredCluster | None = None
    # The control database first: the shards are compared with what it says.
    for alias in sorted(named, key=lambda each: each != DEFAULT_DB_ALIAS):
        try:
            if alias == DEFAULT_DB_ALIAS:
                expected = stored_cluster.cluster()
                found += _of_control(expected)
            else:
                found += _of_copies(alias, expected)
                found += _of_prepared_transactions(alias)
                found += _of_fence(alias, expected)
            found += _of_identity(alias, expected)
        except DatabaseError as error:
            found.append(_unreachable(alias, error))
    return found


def check_servers(app_configs: AppConfigs, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for all that the named databases should have in common and have not: versions, collations."""
    if conf.problems():
        return []
    found: dict[str, Server] = {}
    # A database that does not answer is E039, which check_stored_cluster() reports.
    for alias in databases or ():
        with suppress(DatabaseError):
            if alias in connections and _gives_rows(alias, databases or ()):
                server = server_of(connections[alias])
                found |= {} if server is None else {alias: server}
    return [Warning(each.message, hint=each.hint, id=each.id) for each in differences(found)]


def _gives_rows(alias: str, databases: Sequence[str]) -> bool:
    """Return whether a database's answers are merged with those of others: a shard's, and an owning `default`'s."""
    if alias in conf.current().shards:
        return True
    stored = stored_cluster.cluster() if alias == DEFAULT_DB_ALIAS and len(databases) > 1 else None
    return stored is not None and alias in stored.counts


def _of_control(stored: StoredCluster | None) -> Iterator[CheckMessage]:
    settings = conf.current()
    if stored is None:
        if settings.shards and stored_cluster.has_tables(DEFAULT_DB_ALIAS):
            yield Warning(
                f"The control database holds no bucket map, but there are shards: {', '.join(settings.shards)}.",
                hint="Run `manage.py migrate_all` and then `manage.py shards init`.",
                id="sharding.W035",
            )
        return
    if (stored.buckets, stored.hash) != (settings.buckets, settings.hash):
        yield Error(
            f"This cluster was initialised with BUCKETS={stored.buckets} and HASH={stored.hash!r}, but SHARDING says "
            f"BUCKETS={settings.buckets} and HASH={settings.hash!r}.",
            hint="They never change, because rows are stored by them: put the former back.",
            id="sharding.E032",
        )
    if stored.map is None:
        yield Error(
            f"The bucket map holds {sum(stored.counts.values())} of {stored.buckets} buckets.",
            hint="Restore the table sharding_bucket of the control database from a backup.",
            id="sharding.E032",
        )
    yield from _of_owners(stored)


def _of_owners(stored: StoredCluster) -> Iterator[CheckMessage]:
    for alias, count in stored.counts.items():
        if alias not in connections:
            variable = alias.removeprefix(conf.SHARD_PREFIX).upper()
            yield Error(
                f"The bucket map names {alias!r} as the owner of {count} buckets, and DATABASES does not have it.",
                hint=f"Declare it again (with sharding.env: set SHARD_URL_{variable}); its rows are there.",
                id="sharding.E036",
            )
        elif alias not in {DEFAULT_DB_ALIAS, *conf.current().shards}:
            yield Error(
                f"The bucket map names {alias!r} as the owner of {count} buckets, and SHARDING['SHARDS'] does not "
                f"list it.",
                hint="List it again: its rows are there, and it would be migrated as the database of an app.",
                id="sharding.E036",
            )
    for alias in conf.current().shards:
        if alias not in stored.numbers:
            yield Warning(
                f"The shard {alias!r} is declared, and the cluster does not know it.",
                hint="Run `manage.py shards init` again: it numbers the new shard and leaves the bucket map alone.",
                id="sharding.W037",
            )
        elif alias not in stored.counts:
            yield Info(
                f"The shard {alias!r} is declared and owns no buckets.",
                hint="Move buckets to it with `manage.py rebalance`.",
                id="sharding.I038",
            )


def _of_identity(alias: str, expected: StoredCluster | None) -> Iterator[CheckMessage]:
    found = stored_cluster.identity(alias)
    message = None if found is None else stored_cluster.contradiction(alias, found, expected)
    if found is None or message is None:
        return
    if expected is not None and (found.cluster, found.shard) == (expected.uuid, alias):
        hint = (
            "The control database was restored from an older backup. Stop the application and restore the newest map, "
            "or writes go to shards that have given their buckets away."
        )
        yield Error(message, hint=hint, id="sharding.E034")
        return
    yield Error(message, hint=f"Correct the URL of {alias!r} before anything is written there.", id="sharding.E033")


def _of_copies(alias: str, expected: StoredCluster | None) -> Iterator[CheckMessage]:
    if expected is None or not reference_models.tables():
        return
    missing = reference_copies.missing(alias)
    if missing:
        yield Warning(
            f"The shard {alias!r} was not given the rows of reference models: {', '.join(missing)}.",
            hint="Run `manage.py migrate_all`, or `manage.py shards init` again. Until then, statements there that "
            "read these tables are refused, and writes of these models do not reach it.",
            id="sharding.W052",
        )


def _of_fence(alias: str, expected: StoredCluster | None) -> Iterator[CheckMessage]:
    # Where the control database is not asked, there is nothing to compare with.
    disagreed = None if expected is None else restoration.disagreed(alias)
    if disagreed:
        yield Error(
            f"The fence of {alias!r} and the bucket map disagree about {disagreed}, as after a restore from a backup.",
            hint=f"Let nothing be written there before you have run `manage.py shards certify {alias}`.",
            id="sharding.E053",
        )


def _of_prepared_transactions(alias: str) -> Iterator[CheckMessage]:
    """A block over several databases prepares its part on each shard, for the moments of its commit."""
    connection = connections[alias]
    if connection.vendor != "postgresql":
        return
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT current_setting('max_prepared_transactions')::int, current_setting('max_connections')::int"
        )
        prepared, sessions = cursor.fetchone()
    if prepared == 0 and conf.current().without_two_phase_commit == "raise":
        yield Warning(
            f"The server of {alias!r} has max_prepared_transactions = 0, so every block that writes there and to "
            f"another database is rolled back.",
            hint=f"Set it to max_connections ({sessions}) and restart the server. Where that cannot be, see "
            f"SHARDING['WITHOUT_TWO_PHASE_COMMIT'].",
            id="sharding.W044",
        )
    elif 0 < prepared < sessions * FEWEST_PREPARED:
        yield Warning(
            f"The server of {alias!r} has max_prepared_transactions = {prepared} for {sessions} connections. When more "
            f"blocks over several databases commit at one time, the others are rolled back.",
            hint=f"Set it to max_connections ({sessions}) and restart the server.",
            id="sharding.W045",
        )


def _unreachable(alias: str, error: DatabaseError) -> CheckMessage:
    reason = " ".join(str(error).split())
    return Error(
        f"The database of {alias!r} cannot be asked: {reason}",
        hint="Start its server, or correct its URL.",
        id="sharding.E039",
    )

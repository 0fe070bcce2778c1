"""
How the databases of a cluster are: who answers, what each holds, and what is wrong. A database that is down is a line.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from django.db import DEFAULT_DB_ALIAS, Error, connections

from sharding import conf, reference_copies, routing, stored_cluster
from sharding.bucket_map import BucketMap, Imbalance
from sharding.commits.resolver import InDoubt, in_doubt
from sharding.fence import condition
from sharding.operations import places, restoration
from sharding.operations.servers import Difference, Server, differences, server_of
from sharding.registry import Entry
from sharding.stored_cluster import StoredCluster

#: Seconds until a server that does not answer counts as down, where its OPTIONS do not say.
CONNECT_TIMEOUT = 3
UNDECLARED = "It is not in DATABASES, and its rows are there."
#: The planner's number of rows: -1 was never counted. A table without a page has none.
ESTIMATE = """
    SELECT CASE WHEN reltuples >= 0 THEN reltuples::bigint WHEN pg_relation_size(oid) = 0 THEN 0 END,
           pg_total_relation_size(oid)
    FROM pg_class WHERE oid = to_regclass(%s)
"""


@dataclass(frozen=True, slots=True)
class DatabaseStatus:
    """One database of the cluster."""

    alias: str
    up: bool
    #: The number in the ids that it mints, the buckets it owns, and the epoch of the map it has seen.
    number: int | None
    buckets: int
    epoch: int | None = None
    #: Whether it says that it is this shard of this cluster; None where it says nothing.
    identified: bool | None = None
    #: Rows and bytes of all sharded tables; None where nobody knows.
    rows: int | None = None
    size: int | None = None
    #: Prepared transactions of ours, and the age in seconds of the oldest.
    in_doubt: int = 0
    oldest_in_doubt: float | None = None
    #: Whether its fence is as it should be; None where there is none to be.
    fenced: bool | None = None
    problems: tuple[str, ...] = ()
    #: None for SQLite, and where it does not answer.
    server: Server | None = None


@dataclass(frozen=True, slots=True)
class Status:
    """A whole cluster; ``exact`` says whether rows were counted or estimated."""

    cluster: str | None
    epoch: int | None
    buckets: int
    hash: str
    exact: bool
    databases: tuple[DatabaseStatus, ...]
    #: None while the map is not known.
    imbalance: Imbalance | None
    #: What is wrong with the cluster as a whole.
    problems: tuple[str, ...]

    @property
    def differences(self) -> list[Difference]:
        """Return what the databases that give rows should have in common and have not."""
        giving = [each for each in self.databases if each.buckets or each.alias != DEFAULT_DB_ALIAS]
        return list(differences({each.alias: each.server for each in giving if each.server is not None}))

    @property
    def sound(self) -> bool:
        return not self.problems and not any(each.problems for each in self.databases)


def status(*, exact: bool = False) -> Status:
    """Return how the cluster is. Rows are the planner's estimate unless ``exact``, which reads every table."""
    settings = conf.current()
    stored, problems = _stored()
    bucket_map = _map(stored)
    weights = {alias: settings.weights.get(alias, 1.0) for alias in settings.shards}
    return Status(
        cluster=str(stored.uuid) if stored else None,
        epoch=stored.epoch if stored else None,
        buckets=settings.buckets,
        hash=settings.hash,
        exact=exact,
        databases=tuple(_database(alias, stored, bucket_map, exact) for alias in places.databases(bucket_map)),
        imbalance=None if bucket_map is None else bucket_map.imbalance(weights),
        problems=problems,
    )


def reason(error: Exception) -> str:
    """Return a database's message in one line."""
    return " ".join(str(error).split()) or type(error).__name__


def _stored() -> tuple[StoredCluster | None, tuple[str, ...]]:
    settings = conf.current()
    try:
        with patiently(DEFAULT_DB_ALIAS):
            stored = stored_cluster.cluster()
    except Error:
        return None, ("The bucket map is not known, because the control database is down.",)
    if stored is None:
        missing = "The control database holds no bucket map. Run `manage.py migrate_all` and then `shards init`."
        return None, (missing,) if settings.shards else ()
    problems = []
    if (stored.buckets, stored.hash) != (settings.buckets, settings.hash):
        problems.append(
            f"The cluster was initialised with BUCKETS={stored.buckets} and HASH={stored.hash!r}, but SHARDING says "
            f"BUCKETS={settings.buckets} and HASH={settings.hash!r}. Put the former back."
        )
    if stored.map is None:
        problems.append("Entries of the bucket map are missing. Restore sharding_bucket from a backup.")
    return stored, tuple(problems)


def _map(stored: StoredCluster | None) -> BucketMap | None:
    if stored is not None:
        return stored.map
    # A cluster of one needs no initialisation.
    settings = conf.current()
    return None if settings.shards else BucketMap.whole(DEFAULT_DB_ALIAS, settings.buckets)


def _database(alias: str, stored: StoredCluster | None, bucket_map: BucketMap | None, exact: bool) -> DatabaseStatus:
    number = stored.numbers.get(alias) if stored else None
    buckets = len(bucket_map.buckets_of(alias)) if bucket_map else 0
    silent = DatabaseStatus(alias, up=False, number=number, buckets=buckets)
    if alias not in connections:
        return replace(silent, problems=(UNDECLARED,))
    try:
        with patiently(alias):
            return _asked(silent, stored, exact)
    except Error as error:
        return replace(silent, problems=(reason(error),))


def _asked(silent: DatabaseStatus, stored: StoredCluster | None, exact: bool) -> DatabaseStatus:
    alias = silent.alias
    connections[alias].ensure_connection()
    problems = []
    if silent.buckets and alias not in {DEFAULT_DB_ALIAS, *conf.current().shards}:
        problems.append("It owns buckets, and SHARDING['SHARDS'] does not list it. List it again.")
    found = stored_cluster.identity(alias)
    contradiction = stored_cluster.contradiction(alias, found, stored) if found else None
    if contradiction:
        problems.append(contradiction)
    elif found is None and stored is not None:
        problems.append("It has no identity. Run `manage.py shards init` again.")
    missing = [entry.label for entry in places.lacking(alias, places.entries())]
    if missing:
        problems.append(f"It has no table of {', '.join(missing)}. Run `manage.py migrate_all`.")
    disagreed = restoration.disagreed(alias) if stored is not None and not contradiction else None
    if disagreed:
        problems.append(
            f"Its fence and the bucket map disagree about {disagreed}, as after a restore from a backup. Run "
            f"`manage.py shards certify {alias}`."
        )
    behind = reference_copies.missing(alias) if stored is not None and alias in conf.current().shards else []
    if behind:
        problems.append(f"It was not given the rows of {', '.join(behind)}. Run `manage.py migrate_all`.")
    fence = condition.condition(alias) if stored and found else None
    if fence:
        problems.append(f"Its fence {fence.lack}. Run `manage.py migrate_all`.")
    waiting = _in_doubt(alias, stored)
    if waiting and waiting[0].age >= conf.current().recover_after:
        problems.append(
            f"Transactions in doubt: {len(waiting)}, the oldest for {waiting[0].age:,.0f} s. "
            f"Run `manage.py shards recover`."
        )
    rows: int | None = 0
    size: int | None = 0
    for entry in places.present(alias, places.entries()):
        some_rows, some_bytes = measured(alias, entry, exact)
        rows = None if rows is None or some_rows is None else rows + some_rows
        size = None if size is None or some_bytes is None else size + some_bytes
    return replace(
        silent,
        up=True,
        epoch=found.epoch if found else None,
        identified=None if found is None else contradiction is None,
        rows=rows,
        size=size,
        fenced=None if fence is None else not fence,
        in_doubt=len(waiting),
        oldest_in_doubt=waiting[0].age if waiting else None,
        problems=tuple(problems),
        server=server_of(connections[alias]),
    )


def _in_doubt(alias: str, stored: StoredCluster | None) -> list[InDoubt]:
    if stored is None or not places.is_postgresql(alias):
        return []
    with connections[alias].cursor() as cursor:
        return in_doubt(cursor, alias, stored.uuid)


def measured(alias: str, entry: Entry, exact: bool = False) -> tuple[int | None, int | None]:
    """Return the rows and the bytes of one table; None for what nobody knows."""
    rows: int | None = None
    size: int | None = None
    if places.is_postgresql(alias):
        with connections[alias].cursor() as cursor:
            cursor.execute(ESTIMATE, [connections[alias].ops.quote_name(entry.table)])
            rows, size = cursor.fetchone()
    if exact or not places.is_postgresql(alias):
        with routing.native(alias):
            rows = places.stored(entry, alias).count()
    return rows, size


@contextmanager
def patiently(alias: str) -> Iterator[None]:
    """Let ``connections[alias]`` of this thread not wait for ever inside for a server that does not answer."""
    before = connections[alias]
    if before.vendor != "postgresql" or before.connection is not None:
        yield
        return
    made = before.copy(alias)
    made.settings_dict["OPTIONS"].setdefault("connect_timeout", CONNECT_TIMEOUT)
    connections[alias] = made
    try:
        yield
    finally:
        connections[alias] = before
        made.close()

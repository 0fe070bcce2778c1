"""
Ask databases which migrations they have applied and which are pending, each on a connection of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from django.db import Error, connections
from django.db.migrations.executor import MigrationExecutor
from django.db.migrations.loader import MigrationLoader

from sharding import conf, stored_cluster
from sharding.direct_connection import direct_connection
from sharding.errors import MapConflict, PooledConnection
from sharding.migrating.target import Target

#: Databases asked at the same time.
PARALLEL = 8


@dataclass(frozen=True, slots=True)
class Answer:
    """What one database said: the names of migrations ("shop.0001_initial"), or why it could not be asked."""

    alias: str
    applied: tuple[str, ...] = ()
    pending: tuple[str, ...] = ()
    error: Exception | None = None


def survey(aliases: Sequence[str], target: Target | None = None) -> dict[str, Answer]:
    """Return the answer of each database, asked in parallel; what is pending leads to ``target``."""
    if not aliases:
        return {}
    with ThreadPoolExecutor(min(PARALLEL, len(aliases)), "survey") as pool:
        return dict(zip(aliases, pool.map(lambda alias: _ask(alias, target or Target()), aliases), strict=True))


def reason(error: BaseException) -> str:
    """Return the first line of a database's or our own message."""
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _ask(alias: str, target: Target) -> Answer:
    try:
        with direct_connection(alias) as connection:
            stranger = _stranger(alias)
            if stranger is not None:
                return Answer(alias, error=stranger)
            executor = MigrationExecutor(connection)
            plan = executor.migration_plan(target.nodes(executor.loader))
            return Answer(alias, applied=_applied(executor.loader), pending=tuple(map(str, (step for step, _ in plan))))
    except (Error, PooledConnection) as error:
        return Answer(alias, error=error)
    finally:
        connections.close_all()


def _stranger(alias: str) -> MapConflict | None:
    """Return an error if a shard's database says that it is another one: its URL leads to the wrong place."""
    found = stored_cluster.identity(alias) if alias in conf.current().shards else None
    message = None if found is None else stored_cluster.contradiction(alias, found, None)
    return None if message is None else MapConflict(f"{message} Correct its URL.")


def _applied(loader: MigrationLoader) -> tuple[str, ...]:
    known = (key for key in loader.applied_migrations if key in loader.graph.nodes)
    return tuple(sorted(f"{app_label}.{name}" for app_label, name in known))

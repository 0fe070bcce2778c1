"""
Before the first move: what a source and a target have to have in common.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db import connections

from sharding.operations import servers
from sharding.operations.servers import Server
from sharding.rebalance import tables
from sharding.rebalance.finding import Finding, error, listed, warning
from sharding.rebalance.sessions import Session

#: Differences that other checks tell: versions, and the encodings, in which the tables themselves differ.
TOLD = frozenset({"sharding.W070", "sharding.W071"})


def found(source: Session, target: Session) -> Iterator[Finding]:
    """Yield what hinders moves from one shard to another."""
    yield from of_tables(source, target)
    yield from of_migrations(source, target)
    yield from of_servers(source, target)


def of_tables(source: Session, target: Session) -> Iterator[Finding]:
    for sentence in tables.differences(source, target):
        yield error("tables", f"{sentence} Run `manage.py migrate_all`, or make them alike.")


def of_migrations(source: Session, target: Session) -> Iterator[Finding]:
    applied = {session.alias: _migrations(session) for session in (source, target)}
    for one, other in ((source.alias, target.alias), (target.alias, source.alias)):
        only = sorted(applied[one] - applied[other])
        if only:
            verb = "is" if len(only) == 1 else "are"
            yield error(
                "migrations",
                f"{listed(only)} {verb} applied on {one!r} and not on {other!r}. Run `manage.py migrate_all`.",
            )


def of_servers(source: Session, target: Session) -> Iterator[Finding]:
    giving, getting = _server(source), _server(target)
    if getting.major < giving.major:
        yield warning(
            "versions",
            f"{target.alias!r} has PostgreSQL {getting.major}, and {source.alias!r} has {giving.major}: an older one "
            f"may not know what rows of a newer one hold. Upgrade {target.alias!r} first.",
        )
    for each in servers.differences({source.alias: giving, target.alias: getting}):
        if each.id not in TOLD:
            yield warning("servers", f"{each.message} {each.hint}")


def _migrations(session: Session) -> set[str]:
    ((exists,),) = session.connection.execute("SELECT to_regclass('django_migrations') IS NOT NULL").fetchall()
    if not exists:
        return set()
    rows = session.connection.execute("SELECT app, name FROM django_migrations").fetchall()
    return {f"{app}.{name}" for app, name in rows}


class _Asked:
    """A mover's session, as servers.server_of() asks a connection of Django's."""

    vendor = "postgresql"

    def __init__(self, session: Session) -> None:
        self.ops = connections[session.alias].ops
        self.pg_version = session.connection.info.server_version
        self.cursor: Any = session.connection.cursor


def _server(session: Session) -> Server:
    found = servers.server_of(_Asked(session))
    assert found is not None
    return found

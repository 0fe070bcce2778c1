"""
Which databases there are to migrate, and what each of them is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf
from sharding.conf import REPLICA_INFIX


@dataclass(frozen=True, slots=True)
class Databases:
    """The aliases to migrate: the control database if it is among them, app databases, shards, each in their order."""

    control: tuple[str, ...]
    apps: tuple[str, ...]
    shards: tuple[str, ...]

    @property
    def all(self) -> tuple[str, ...]:
        return self.control + self.apps + self.shards


def databases(chosen: Sequence[str] = ()) -> Databases:
    """
    Return the databases to migrate: every alias of DATABASES without the replicas, or those that are chosen.

    Raises:
        CommandError: an alias is unknown, or is a replica.
    """
    for alias in chosen:
        _require_migratable(alias)
    wanted = [alias for alias in connections if not is_replica(alias) and (not chosen or alias in chosen)]
    shards = tuple(alias for alias in conf.current().shards if alias in wanted)
    return Databases(
        control=tuple(alias for alias in wanted if alias == DEFAULT_DB_ALIAS),
        apps=tuple(alias for alias in wanted if alias != DEFAULT_DB_ALIAS and alias not in shards),
        shards=shards,
    )


def is_replica(alias: str) -> bool:
    """Return whether an alias is a read-only copy, which gets its schema from its primary."""
    return REPLICA_INFIX in alias or bool(connections.settings[alias]["TEST"]["MIRROR"])


def _require_migratable(alias: str) -> None:
    if alias not in connections:
        raise CommandError(f"There is no database {alias!r}. Choose from {', '.join(databases().all)}.")
    if is_replica(alias):
        raise CommandError(f"{alias!r} is a replica and gets its schema from its primary. Migrate the primary.")

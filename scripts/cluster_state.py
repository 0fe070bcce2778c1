"""
What a cluster of PostgreSQL servers is made of: its servers' names and ports, its passwords, and how it was made.
"""

from __future__ import annotations

import json
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

from scripts.postgres_programs import ClusterError

CONTROL = "control"
REPLICA = "_replica_"
DEFAULT_SHARDS = 4
MAX_SHARDS = len(string.ascii_lowercase)


class Wanted(TypedDict, total=False):
    """What a caller may ask of a cluster; what is absent or None stays as it is."""

    shards: int | None
    replicas: int | None
    fast: bool | None
    version: str | None
    locale: str | None


@dataclass
class State:
    """What ``cluster.json`` holds."""

    version: str
    locale: str
    fast: bool
    ports: dict[str, int] = field(default_factory=dict)
    passwords: dict[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, wanted: Wanted) -> State:
        """Return the state of a cluster that has no server yet."""
        return cls(wanted.get("version") or "18", wanted.get("locale") or "C.UTF-8", bool(wanted.get("fast")))

    @classmethod
    def read(cls, file: Path) -> State:
        """
        Return the state that a file holds.

        Raises:
            ClusterError: the file holds something else.
        """
        try:
            return cls(**json.loads(file.read_text()))
        except (ValueError, TypeError):
            raise ClusterError(
                f"{file} is damaged, and with it the passwords of the servers. Restore it, or stop the servers and "
                f"remove {file.parent}."
            ) from None


def names_of(found: Iterable[str], shards: int | None, replicas: int | None) -> list[str]:
    """Return the names of all servers wanted; those that were ``found`` are always among them."""
    names = set(found)
    if shards is None:
        shards = 0 if names else DEFAULT_SHARDS
    names |= {CONTROL, *(f"shard_{letter}" for letter in string.ascii_lowercase[:shards])}
    copies = max([replicas or 0, *(int(name.partition(REPLICA)[2] or 0) for name in names)])
    primaries = {name for name in names if REPLICA not in name}
    return sorted(primaries | {f"{name}{REPLICA}{number}" for name in primaries for number in range(1, copies + 1)})


def variable_of(name: str) -> str:
    """Return the environment variable for the URL of a server."""
    primary, _, number = name.partition(REPLICA)
    variable = "DATABASE_URL" if primary == CONTROL else f"SHARD_URL_{primary.removeprefix('shard_').upper()}"
    return f"{variable}__REPLICA_{number}" if number else variable

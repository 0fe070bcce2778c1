"""
What is wrong with the fence of one database: it is not as `migrate_all` makes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from django.db import connections

from sharding import conf
from sharding.fence import installation

#: How many buckets and tables a sentence names.
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Condition:
    """What is to be said of a fence."""

    #: The end of a sentence that begins with the fence; None for nothing.
    lack: str | None = None

    def __bool__(self) -> bool:
        return self.lack is not None


def condition(alias: str) -> Condition | None:
    """Return what is wrong with the fence of a database that belongs to the cluster; None where there is none to be."""
    connection: Any = connections[alias]
    if conf.current().fence is None or not conf.current().shards or not installation.is_possible(connection):
        return None
    if not installation.is_installed(connection):
        return Condition(lack="is missing")
    return Condition(_lack(installation.inspect(connection)))


def _lack(found: installation.Lack) -> str | None:
    if found.functions:
        return "is of another version"
    return f"has not the triggers that it should have on {_some(found.tables)}" if found.tables else None


def _some(found: Sequence[object]) -> str:
    more = len(found) - _SHOWN
    return ", ".join(map(str, found[:_SHOWN])) + (f" and {more:,} more" if more > 0 else "")

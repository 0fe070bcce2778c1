"""
The steps by which databases answer a query: what each is sent, what comes back, and how that becomes one answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement, and who is sent it."""

    databases: tuple[str, ...]
    sql: str
    params: tuple[Any, ...] = ()

    def __str__(self) -> str:
        return self.sql % tuple(map(_literal, self.params))


@dataclass(frozen=True, slots=True)
class MergeKey:
    """A column by which sorted rows are merged."""

    column: str
    descending: bool
    nulls_first: bool
    #: Who compares its values, and by what.
    compared: str

    def __str__(self) -> str:
        direction = "descending" if self.descending else "ascending"
        nulls = "first" if self.nulls_first else "last"
        return f"{self.column} {direction}, NULLs {nulls}, compared {self.compared}"


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done; what is empty is not."""

    statements: tuple[Statement, ...] = ()
    #: What every shard sends: the columns of the answer, and those that are cut off when rows are merged.
    columns: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    keys: tuple[MergeKey, ...] = ()
    #: Equal rows of different shards count once.
    distinct: bool = False
    #: The rows of the whole that are wanted: the first one, and the one before which it ends; a shard sends no more.
    low: int = 0
    high: int | None = None
    #: What every shard computes for each of its groups: by what it groups, and the parts of aggregates.
    groups: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    #: The tables, and the columns and rows of them, that every shard sends as they are.
    gathered: tuple[str, ...] = ()
    #: Makes the answer of these, by a statement over them if ``finishing`` is one.
    finisher: str = ""
    finishing: Statement | None = None

    def rows(self, *, sql: bool) -> Iterator[tuple[str, str]]:
        """Yield what is done as pairs of a heading and a text."""
        if sql:
            yield from (("SQL", str(statement)) for statement in self.statements)
        if self.columns:
            yield "Columns", ", ".join(self.columns)
        if self.hidden:
            yield "Hidden", f"{', '.join(self.hidden)}, to merge by"
        for number, key in enumerate(self.keys):
            yield "" if number else "Merged by", str(key)
        if self.distinct:
            yield "Distinct", "equal rows of different shards count once"
        if self.high is not None:
            yield "Slice", f"rows {self.low} to {self.high} of the whole; each shard sends {self.high} at most"
        elif self.low:
            yield "Slice", f"rows from {self.low} on of the whole; each shard sends all"
        if self.groups:
            yield "Groups", ", ".join(self.groups)
        if self.parts:
            yield "Parts", ", ".join(self.parts)
        for number, table in enumerate(self.gathered):
            yield "" if number else "Gathered", table
        if self.finisher:
            yield "Finished", self.finisher
        if sql and self.finishing:
            yield "", str(self.finishing)


def grid(rows: Iterator[tuple[str, str]]) -> str:
    """Return pairs of a heading and a text as lines."""
    pairs = list(rows)
    width = max(len(heading) for heading, _ in pairs)
    return "\n".join(f"{heading:{width}}  {text}".rstrip() for heading, text in pairs)


def _literal(value: Any) -> str:
    """Return a parameter for reading. What the driver makes of it is never seen by anybody but the server."""
    if value is None:
        return "NULL"
    if isinstance(value, (bool, int, float)):
        return str(value)
    return "'" + str(value).replace("'", "''") + "'"

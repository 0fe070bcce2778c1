"""
The real schema of one database, as far as all shards have it in common, and the comparison of two. Pure.

What is left out on purpose: the order of columns, and names that nobody wrote (Django and the database make them up).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Column:
    type: str
    null: bool
    default: str | None
    #: GENERATED … or a collation, where the column has one.
    extra: str = ""


@dataclass(frozen=True, slots=True)
class Table:
    columns: Mapping[str, Column]
    #: Indexes and constraints as the database defines them; a name stands before it where somebody wrote one.
    indexes: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Schema:
    vendor: str
    tables: Mapping[str, Table]
    #: Sequences by name, each with its definition.
    sequences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Difference:
    """One difference between a shard and the control database; ``str()`` says it in words."""

    shard: str
    table: str
    column: str | None
    message: str

    def __str__(self) -> str:
        return self.message


def differences(shard: str, here: Schema, there: Schema) -> Iterator[Difference]:
    """Yield what ``here``, the schema of ``shard``, has otherwise than ``there``, that of the control database."""
    if here.vendor != there.vendor:
        yield Difference(shard, "", None, f"{shard} runs on {here.vendor} and the control database on {there.vendor}.")
        return
    for name in sorted(here.tables.keys() | there.tables.keys()):
        yield from _table(shard, name, here.tables.get(name), there.tables.get(name))
    for name in sorted(here.sequences.keys() | there.sequences.keys()):
        ours, theirs = here.sequences.get(name), there.sequences.get(name)
        if ours != theirs:
            yield Difference(shard, name, None, f"{shard}: the sequence {name} {_against(ours, theirs)}.")


def _table(shard: str, name: str, here: Table | None, there: Table | None) -> Iterator[Difference]:
    if here is None:
        yield Difference(shard, name, None, f"{shard} has no table {name}, which the control database has.")
    elif there is None:
        yield Difference(shard, name, None, f"{shard} has a table {name}, which the control database does not have.")
    else:
        yield from _columns(shard, name, here, there)
        yield from _definitions(shard, name, "index", here.indexes, there.indexes)
        yield from _definitions(shard, name, "constraint", here.constraints, there.constraints)


def _columns(shard: str, table: str, here: Table, there: Table) -> Iterator[Difference]:
    for name in sorted(here.columns.keys() | there.columns.keys()):
        ours, theirs = here.columns.get(name), there.columns.get(name)
        if ours is None:
            found = f"{shard}: {table} has no column {name}, which the control database has."
            yield Difference(shard, table, name, found)
        elif theirs is None:
            found = f"{shard}: {table} has a column {name}, which the control database does not have."
            yield Difference(shard, table, name, found)
        else:
            for what in _unlike(ours, theirs):
                yield Difference(shard, table, name, f"{shard}: {table}.{name} {what}.")


def _unlike(here: Column, there: Column) -> Iterator[str]:
    if here.type != there.type:
        yield f"is {here.type} here and {there.type} in the control database"
    if here.null != there.null:
        ours, theirs = ("allows NULL", "forbids it") if here.null else ("forbids NULL", "allows it")
        yield f"{ours} here, and the control database {theirs}"
    if here.default != there.default:
        ours, theirs = (
            f"the default {each}" if each is not None else "no default" for each in (here.default, there.default)
        )
        yield f"has {ours} here and {theirs} in the control database"
    if here.extra != there.extra:
        yield f"is {here.extra or 'plain'} here and {there.extra or 'plain'} in the control database"


def _definitions(
    shard: str, table: str, kind: str, here: tuple[str, ...], there: tuple[str, ...]
) -> Iterator[Difference]:
    for definition in sorted((Counter(there) - Counter(here)).elements()):
        found = f"{shard}: {table} lacks the {kind} {definition}, which the control database has."
        yield Difference(shard, table, None, found)
    for definition in sorted((Counter(here) - Counter(there)).elements()):
        found = f"{shard}: {table} has the {kind} {definition}, which the control database does not have."
        yield Difference(shard, table, None, found)


def _against(here: str | None, there: str | None) -> str:
    if here is None:
        return "is missing here"
    if there is None:
        return "is missing in the control database"
    return f"is {here} here and {there} in the control database"

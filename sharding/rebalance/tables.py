"""
The tables whose rows a move takes along: read from a database's catalog, those first that others refer to.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from typing import Any

from sharding import registry
from sharding.errors import TablesDiffer
from sharding.rebalance import catalog
from sharding.rebalance.sessions import Session


@dataclass(frozen=True, slots=True)
class Column:
    """A column, in the words of the catalog."""

    name: str
    #: The type as it is declared, and the same without length or scale, for casts.
    type: str
    cast: str
    #: "" where the type has none.
    collation: str
    nullable: bool
    #: The expression of a generated column, or "".
    generated: str
    #: "a" for GENERATED ALWAYS AS IDENTITY, "d" for BY DEFAULT, or "".
    identity: str
    #: Whether the value's binary form means the same on every server.
    binary: bool
    #: "json", "plain", or "unfit" for one that cannot be taken out of a JSON array again.
    as_key: str


@dataclass(frozen=True, slots=True)
class ForeignKey:
    """A foreign key that the database enforces, between two tables of a move."""

    name: str
    columns: tuple[str, ...]
    target: str
    target_columns: tuple[str, ...]
    #: "a" for NO ACTION, "r", "c", "n" or "d"; as in pg_constraint.
    on_delete: str

    @property
    def cascades(self) -> bool:
        """Return whether the database itself changes rows when one goes to which they refer."""
        return self.on_delete in "cnd"


@dataclass(frozen=True, slots=True)
class Table:
    """A table with a bucket in every row."""

    name: str
    columns: tuple[Column, ...]
    #: The columns of the primary key, in its order.
    key: tuple[Column, ...]
    foreign_keys: tuple[ForeignKey, ...] = ()
    #: Whether its rows refer, perhaps through other tables, to rows of itself.
    cyclic: bool = False

    @property
    def copied(self) -> tuple[Column, ...]:
        """Return the columns that are written; the database computes the others."""
        return tuple(column for column in self.columns if not column.generated)

    @property
    def binary(self) -> bool:
        return all(column.binary for column in self.copied)


def sharded_tables(session: Session) -> tuple[Table, ...]:
    """
    Return the tables of all sharded models as they are at a shard, those first to which others refer.

    What is still to be migrated has no rows of a bucket, and is left out: no migration begins before the moves have
    ended that have begun, whatever code their movers run by now.

    Raises:
        TablesDiffer: a table has no primary key that names its rows.
    """
    existing = read(session, sorted(registry.tables()))
    found = {name: table for name, table in existing.items() if _has_bucket(table)}
    problems = list(_problems(session.alias, found))
    if problems:
        raise TablesDiffer(
            f"The tables of {session.alias!r} cannot be copied: {' '.join(problems)} "
            f"Run manage.py migrate_all, and give each table a primary key.",
            differences=tuple(problems),
        )
    return parents_first(found)


def require_alike(source: Session, target: Session) -> None:
    """Raise TablesDiffer where rows of one shard could not be rows of the other; see differences()."""
    found = differences(source, target)
    if found:
        raise TablesDiffer(
            f"The tables of {source.alias!r} and {target.alias!r} are not alike: {' '.join(found)} "
            f"Run manage.py migrate_all, and correct by hand what it does not make.",
            differences=tuple(found),
        )


def differences(source: Session, target: Session) -> list[str]:
    """
    Return in which ways the tables of two shards are not alike, a sentence each.

    An empty list means that every row of the one can be a row of the other, unchanged.
    """
    names = sorted(registry.tables())
    giving, getting = read(source, names), read(target, names)
    sides = ((source, giving), (target, getting))
    found = [line for side in sides for line in (*_missing(*side), *_problems(side[0].alias, side[1]))]
    for name in giving.keys() & getting.keys():
        found.extend(_compared(giving[name], getting[name], source.alias, target.alias))
    encodings = {each.alias: catalog.encoding(each) for each in (source, target)}
    if len(set(encodings.values())) > 1:
        found.append(f"The encoding is {_sides(encodings)}.")
    return sorted(found)


def read(session: Session, names: Collection[str]) -> dict[str, Table]:
    """Return the tables that exist, by name, without order."""
    columns = {name: tuple(Column(*facts) for facts in rows) for name, rows in catalog.columns(session, names).items()}
    keys, references = catalog.primary_keys(session, names), catalog.foreign_keys(session, names)
    return {
        name: Table(
            name,
            found,
            tuple(column for each in keys.get(name, ()) for column in found if column.name == each),
            tuple(ForeignKey(*facts) for facts in references.get(name, ())),
        )
        for name, found in columns.items()
    }


def parents_first(tables: Mapping[str, Table]) -> tuple[Table, ...]:
    """
    Return tables in an order in which each comes after those to which it refers; those in a circle as they come.

    No table comes between those of a circle that is in none itself.
    """
    reached = {name: _reached(name, tables) for name in tables}
    # What refers to a table reaches that one, and all that it reaches: more, unless they are in one circle.
    order = sorted(tables, key=lambda name: (len(reached[name] - {name}), name in reached[name], name))
    return tuple(replace(tables[name], cyclic=name in reached[name]) for name in order)


def _reached(name: str, tables: Mapping[str, Table]) -> set[str]:
    found: set[str] = set()
    waiting = [name]
    while waiting:
        for each in tables[waiting.pop()].foreign_keys:
            if each.target in tables and each.target not in found:
                found.add(each.target)
                waiting.append(each.target)
    return found


def _missing(session: Session, found: Mapping[str, Table]) -> Iterator[str]:
    missing = registry.tables().keys() - found.keys()
    for name in sorted(missing - catalog.views(session, missing)):
        yield f"{name} does not exist on {session.alias!r}."


def _has_bucket(table: Table) -> bool:
    return registry.BUCKET_COLUMN in {column.name for column in table.columns}


def _problems(alias: str, found: Mapping[str, Table]) -> Iterator[str]:
    for name, table in found.items():
        if not _has_bucket(table):
            yield f"{name} has no column {registry.BUCKET_COLUMN} on {alias!r}."
        if not table.key:
            yield f"{name} has no primary key on {alias!r}."
        for column in table.key:
            if column.as_key == "unfit":
                yield f"{name}.{column.name} is {column.type} on {alias!r}, which can be no part of a primary key here."


def _compared(giving: Table, getting: Table, source: str, target: str) -> Iterator[str]:
    theirs = {column.name: column for column in getting.columns}
    for column in giving.columns:
        other = theirs.pop(column.name, None)
        if other is None:
            yield f"{giving.name} has a column {column.name} on {source!r}, and none on {target!r}."
            continue
        for each in fields(Column):
            sides: dict[str, Any] = {source: getattr(column, each.name), target: getattr(other, each.name)}
            if len(set(sides.values())) > 1 and each.name in _COMPARED:
                yield f"{giving.name}.{column.name} has {_COMPARED[each.name]} {_sides(sides)}."
    for name in theirs:
        yield f"{giving.name} has a column {name} on {target!r}, and none on {source!r}."
    keys = {alias: [c.name for c in table.key] for alias, table in ((source, giving), (target, getting))}
    if keys[source] != keys[target]:
        yield f"{giving.name} has the primary key {_sides(keys)}."
    foreign = {alias: _enforced(table) for alias, table in ((source, giving), (target, getting))}
    if foreign[source] != foreign[target]:
        only = {
            source: sorted(foreign[source] - foreign[target]),
            target: sorted(foreign[target] - foreign[source]),
        }
        yield f"{giving.name} has foreign keys that the other has not: {_sides(only)}."


#: What has to be the same, and what a sentence calls it.
_COMPARED = {
    "type": "the type",
    "collation": "the collation",
    "nullable": "the nullability",
    "generated": "the expression",
    "identity": "the identity",
}


def _enforced(table: Table) -> set[str]:
    return {
        f"({', '.join(each.columns)}) to {each.target} ({', '.join(each.target_columns)})"
        for each in table.foreign_keys
    }


def _sides(values: Mapping[str, Any]) -> str:
    return " and ".join(f"{value!r} on {alias!r}" for alias, value in values.items())

"""
Make rows on one shard what they are on another, at one instant: written where they exist, deleted where they do not.

Whatever is read in one snapshot may be written in one transaction, in any order: foreign keys hold there at its end.
It is done in the cheapest way that the constraints allow; a constraint that is broken on the way asks for the next.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import TypeVar

import psycopg
from psycopg.sql import SQL, Composed

from sharding.entries import BUCKET_COLUMN
from sharding.errors import CopyDamaged, CopyRefused
from sharding.rebalance import statements as s
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.sessions import Cursor
from sharding.rebalance.tables import ForeignKey, Table

#: {table name: keys, as the texts of JSON arrays}
Keys = Mapping[str, Collection[str]]
Result = TypeVar("Result")


class Way(IntEnum):
    """How much is done so that no constraint is broken."""

    #: The rows alone, updated in place.
    ALONE = 0
    #: Together with the rows to which they refer, and with those that refer to rows which are deleted.
    TOGETHER = 1
    #: So, and what is written is deleted first: values that must be unique may have changed places.
    ANEW = 2


def in_the_cheapest_way(alias: str, attempt: Callable[[Way], Result], ways: Iterable[Way] = Way) -> Result:
    """
    Return what ``attempt`` returns in the first way in which no constraint is broken.

    Raises:
        CopyRefused: one is broken in every way.
        CopyDamaged: so are the rows themselves.
    """
    broken: psycopg.IntegrityError | CopyDamaged | None = None
    for way in ways:
        try:
            return attempt(way)
        except (psycopg.IntegrityError, CopyDamaged) as error:
            # A row that is written anew has another number GENERATED ALWAYS, to which no UPDATE sets a column.
            broken = error
    assert broken is not None
    if isinstance(broken, CopyDamaged):
        raise broken
    table, constraint = broken.diag.table_name or "", broken.diag.constraint_name
    raise CopyRefused(
        f"{alias!r} does not take rows of {table}: {constraint} would be broken "
        f"({(broken.diag.message_primary or '').rstrip('.')}). Look at the rows that {alias!r} has already.",
        table=table,
        alias=alias,
        constraint=constraint,
    ) from broken


@dataclass(slots=True)
class _Read:
    """The rows of one table, as they are where they come from: {key: (hash, values)}; and the keys of none."""

    rows: dict[str, tuple[int, list[str | None]]] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)


def refresh(source: Cursor, target: Cursor, facts: MoveFacts, alias: str, keys: Keys, way: Way) -> None:
    """
    Write the rows with the given keys to the target as the source's snapshot has them, and delete those it has not.

    Args:
        alias: the target's, for messages.

    Raises:
        psycopg.IntegrityError: in this way, a constraint is broken that is not deferred.
        CopyDamaged: what was written is not what was read.
    """
    read: dict[str, _Read] = {}
    waiting = {name: set(found) for name, found in keys.items() if found}
    while waiting:
        new = {name: _read(source, facts, facts.table(name), found) for name, found in waiting.items()}
        for name, found in new.items():
            known = read.setdefault(name, _Read())
            known.rows |= found.rows
            known.gone |= found.gone
        waiting = _relatives(source, target, facts, new, read, way) if way > Way.ALONE else {}
    _write(target, facts, read, way)
    for name, found in read.items():
        if found.rows:
            _verify(target, facts.table(name), alias, found)


def _read(source: Cursor, facts: MoveFacts, table: Table, keys: Iterable[str]) -> _Read:
    source.execute(
        SQL("SELECT given.key::text, {}::text, {}, {} FROM {} LEFT JOIN {} AS t ON {} AND {}").format(
            s.key_of(table, "t"),
            s.hash_of(table, "t"),
            s.as_texts(table.copied, "t"),
            s.given(keys),
            s.table_name(table),
            s.is_given(table, "t"),
            s.in_bucket(facts.bucket, "t"),
        )
    )
    found = _Read()
    place = [column.name for column in table.copied].index(BUCKET_COLUMN)
    for given, key, hashed, values in source:
        if values[place] is None:
            found.gone.add(given)
        else:
            found.rows[key] = (hashed, values)
    return found


def _relatives(
    source: Cursor, target: Cursor, facts: MoveFacts, new: Mapping[str, _Read], read: Mapping[str, _Read], way: Way
) -> dict[str, set[str]]:
    """Return the keys of rows that have to come along with those that were just read."""
    found: dict[str, set[str]] = {}
    for table in facts.tables:
        for foreign_key in table.foreign_keys:
            parent = facts.table(foreign_key.target)
            if (children := new.get(table.name)) and children.rows:
                referred = _referred(source, facts, table, foreign_key, parent, children.rows)
                found.setdefault(parent.name, set()).update(_missing(target, parent, referred))
            if parents := new.get(parent.name):
                # Whatever is deleted for an instant takes along what would go with it.
                rows = parents.rows if way is Way.ANEW and foreign_key.cascades else ()
                referring = _referring(target, table, foreign_key, parent, {*parents.gone, *rows})
                found.setdefault(table.name, set()).update(referring)
    known = {name: {*each.rows, *each.gone} for name, each in read.items()}
    return {name: left for name, keys in found.items() if (left := keys - known.get(name, set()))}


def _joined(table: Table, foreign_key: ForeignKey, parent: Table) -> Composed:
    """Return a table as ``child`` with those of the rows of ``parent`` to which it refers."""
    pairs = zip(foreign_key.columns, foreign_key.target_columns, strict=True)
    on = s.AND.join(SQL("{} = {}").format(s.name(own, "child"), s.name(other, "parent")) for own, other in pairs)
    return SQL("{} AS child JOIN {} AS parent ON {}").format(s.table_name(table), s.table_name(parent), on)


def _referred(
    source: Cursor, facts: MoveFacts, table: Table, foreign_key: ForeignKey, parent: Table, keys: Iterable[str]
) -> set[str]:
    source.execute(
        SQL("SELECT DISTINCT {}::text FROM {} JOIN {} ON {} WHERE {}").format(
            s.key_of(parent, "parent"),
            s.given(keys),
            _joined(table, foreign_key, parent),
            s.is_given(table, "child"),
            s.in_bucket(facts.bucket, "parent"),
        )
    )
    return {key for (key,) in source}


def _referring(target: Cursor, table: Table, foreign_key: ForeignKey, parent: Table, keys: Collection[str]) -> set[str]:
    if not keys:
        return set()
    target.execute(
        SQL("SELECT DISTINCT {}::text FROM {} JOIN {} ON {}").format(
            s.key_of(table, "child"), s.given(keys), _joined(table, foreign_key, parent), s.is_given(parent, "parent")
        )
    )
    return {key for (key,) in target}


def _missing(target: Cursor, table: Table, keys: Collection[str]) -> set[str]:
    return set(keys) - existing(target, table, keys)


def existing(target: Cursor, table: Table, keys: Collection[str]) -> set[str]:
    """Return those of the keys that name a row."""
    if not keys:
        return set()
    target.execute(
        SQL("SELECT given.key::text FROM {} JOIN {} AS t ON {}").format(
            s.given(keys), s.table_name(table), s.is_given(table, "t")
        )
    )
    return {key for (key,) in target}


def _write(target: Cursor, facts: MoveFacts, read: Mapping[str, _Read], way: Way) -> None:
    tables = [table for table in facts.tables if table.name in read]
    cascading = any(each.cascades for table in facts.tables for each in table.foreign_keys)

    def delete() -> None:
        for table in reversed(tables):
            found = read[table.name]
            _delete(target, facts, table, {*found.gone, *(found.rows if way is Way.ANEW else ())})

    # A cascade must find nothing that still refers to the row; without one, what goes makes room first.
    if way is Way.ANEW or not cascading:
        delete()
    for table in tables:
        _insert(target, table, read[table.name])
    if way is not Way.ANEW and cascading:
        delete()


def _delete(target: Cursor, facts: MoveFacts, table: Table, keys: Collection[str]) -> None:
    if keys:
        target.execute(
            SQL("DELETE FROM {} WHERE {} AND {}").format(
                s.table_name(table), s.in_bucket(facts.bucket), s.among(table, keys)
            )
        )


def _insert(target: Cursor, table: Table, found: _Read) -> None:
    if not found.rows:
        return
    # The key, too: 1.0 and 1.00 are one key.
    changed = [each for each in table.copied if each.name != BUCKET_COLUMN and each.identity != "a"]
    action = Composed([SQL("DO NOTHING")])
    if changed:
        pairs = s.COMMA.join(SQL("{} = {}").format(s.name(c.name), s.name(c.name, "excluded")) for c in changed)
        # A row of another bucket is left as it is, and missed by what verifies these.
        action = SQL("DO UPDATE SET {} WHERE {} = {}").format(
            pairs, s.name(BUCKET_COLUMN, "t"), s.name(BUCKET_COLUMN, "excluded")
        )
    target.execute(
        SQL("INSERT INTO {} AS t ({}) OVERRIDING SYSTEM VALUE {} ON CONFLICT ({}) {}").format(
            s.table_name(table), s.names(table.copied), s.rows_of(table.copied), s.names(table.key), action
        ),
        [list(each) for each in zip(*(values for _, values in found.rows.values()), strict=True)],
    )


def _verify(target: Cursor, table: Table, alias: str, found: _Read) -> None:
    target.execute(
        SQL("SELECT {} FROM {} WHERE {}").format(s.digest_of(table), s.table_name(table), s.among(table, found.rows))
    )
    if target.fetchone() != (len(found.rows), sum(hashed for hashed, _ in found.rows.values())):
        keys = sorted(found.rows)
        raise damaged(table, alias, keys[0], keys[-1])


def damaged(table: Table, alias: str, first: str | None, last: str | None) -> CopyDamaged:
    """Return the error that says of some rows that they are not what they should be."""
    return CopyDamaged(
        f"Rows of {table.name} with keys from {first} to {last} are not on {alias!r} what was sent there, so they were "
        f"not kept. Look for a trigger on {table.name} that changes rows, and compare the types of its columns.",
        table=table.name,
        alias=alias,
        first=first,
        last=last,
    )

"""
The pieces of SQL of which a mover's statements are made.

A primary key travels as the text of a JSON array, which `jsonb_build_array()` of its columns is; the same is in the log
and in the progress. Two texts may name one row (1.0 and 1.00, an hour in two time zones): rows are compared by the
database, in the types of the columns.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg.sql import SQL, Composed, Identifier, Literal

from sharding.entries import BUCKET_COLUMN
from sharding.rebalance.tables import Column, Table

COMMA = SQL(", ")
AND = SQL(" AND ")


@dataclass(frozen=True, slots=True)
class KeyRange:
    """The keys after one, up to and with another; None is no limit."""

    after: str | None = None
    last: str | None = None


def table_name(table: Table) -> Identifier:
    return Identifier(table.name)


def names(columns: Iterable[Column], of: str | None = None) -> Composed:
    """Return the names of columns, those of the table with the alias ``of``."""
    return COMMA.join(name(each.name, of) for each in columns)


def name(column: str, of: str | None = None) -> Identifier:
    return Identifier(of, column) if of else Identifier(column)


def key_of(table: Table, of: str | None = None) -> Composed:
    """Return the primary key as a JSON array."""
    return SQL("jsonb_build_array({})").format(names(table.key, of))


def hash_of(table: Table, of: str | None = None) -> Composed:
    """Return a number of 64 bits that differs when any written value of a row does, be it in its form alone."""
    return SQL("hashtextextended(ROW({})::text, 0)").format(names(table.copied, of))


def digest_of(table: Table) -> Composed:
    """Return the number of rows, and the sum of their hashes, which knows no order."""
    return SQL("count(*), coalesce(sum({}), 0)").format(hash_of(table))


def in_bucket(bucket: int, of: str | None = None) -> Composed:
    return SQL("{} = {}").format(name(BUCKET_COLUMN, of), Literal(bucket))


def in_buckets(buckets: Iterable[int], of: str | None = None) -> Composed:
    return SQL("{} = ANY({}::smallint[])").format(name(BUCKET_COLUMN, of), Literal(sorted(buckets)))


def in_range(table: Table, limits: KeyRange, of: str | None = None) -> Composed:
    """Return a condition on the primary key, which the index on bucket and key can answer."""
    conditions = [Composed([SQL("true")])]
    for operator, key in ((SQL(">"), limits.after), (SQL("<="), limits.last)):
        if key is not None:
            values = COMMA.join(_parts(table, SQL("{}::jsonb").format(Literal(key))))
            conditions.append(SQL("({}) {} ({})").format(names(table.key, of), operator, values))
    return AND.join(conditions)


def given(keys: Iterable[str], label: str = "given") -> Composed:
    """Return a table expression ``given(key)`` of keys."""
    return SQL("jsonb_array_elements({}::jsonb) AS {}(key)").format(Literal(f"[{','.join(keys)}]"), Identifier(label))


def is_given(table: Table, of: str | None = None) -> Composed:
    """Return the condition that a row is the one that ``given.key`` names."""
    parts = _parts(table, Composed([Identifier("given", "key")]))
    return AND.join(
        SQL("{} = {}").format(name(column.name, of), part) for column, part in zip(table.key, parts, strict=True)
    )


def is_same(table: Table, other: str) -> Composed:
    """Return the condition that ``given.key`` and the key of another table of keys name one row."""
    pairs = (_parts(table, Composed([Identifier(label, "key")])) for label in ("given", other))
    return AND.join(SQL("{} = {}").format(mine, theirs) for mine, theirs in zip(*pairs, strict=True))


def among(table: Table, keys: Iterable[str]) -> Composed:
    """Return the condition that a row is one of those that keys name."""
    parts = COMMA.join(_parts(table, Composed([Identifier("given", "key")])))
    return SQL("({}) IN (SELECT {} FROM {})").format(names(table.key), parts, given(keys))


def as_texts(columns: Iterable[Column], of: str | None = None) -> Composed:
    """Return the values of columns as an array of text, from which their types read the same values again."""
    return SQL("ARRAY[{}]::text[]").format(COMMA.join(SQL("{}::text").format(name(each.name, of)) for each in columns))


def forms_of(columns: Iterable[Column]) -> Composed:
    """Return the values of columns as an array of text, each as a digest has it."""
    forms = (
        SQL("CASE WHEN {0} IS NOT DISTINCT FROM NULL THEN NULL ELSE ROW({0})::text END").format(name(each.name))
        for each in columns
    )
    return SQL("ARRAY[{}]::text[]").format(COMMA.join(forms))


def number(value: int) -> Literal:
    return Literal(value)


def rows_of(columns: tuple[Column, ...]) -> Composed:
    """Return a SELECT of rows whose values are given as texts: one parameter a column, an array of its values."""
    values = COMMA.join(
        SQL("{}::{}").format(Identifier(f"c{place}"), _type(each)) for place, each in enumerate(columns)
    )
    arrays = COMMA.join(SQL("%s::text[]") for _ in columns)
    labels = COMMA.join(Identifier(f"c{place}") for place, _ in enumerate(columns))
    return SQL("SELECT {} FROM unnest({}) AS texts({})").format(values, arrays, labels)


def _parts(table: Table, array: Composed) -> list[Composed]:
    """Return the values of a key that is a JSON array, each in its column's type."""
    return [
        SQL("({} {} {})::{}").format(
            array, SQL("->" if column.as_key == "json" else "->>"), Literal(place), _type(column)
        )
        for place, column in enumerate(table.key)
    ]


def _type(column: Column) -> Composed:
    # As the catalog wrote it, quoted where it has to be.
    return Composed([SQL(column.cast)])

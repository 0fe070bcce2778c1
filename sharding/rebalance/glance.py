"""
Compare many tables, of one bucket or several, in one statement on each side: most have few rows, and are alike.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from typing import Any

from psycopg.sql import SQL, Composed, Literal

from sharding.rebalance import statements as s
from sharding.rebalance.comparing import NUMBERS
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.refreshing import Keys
from sharding.rebalance.sessions import Cursor
from sharding.rebalance.tables import Table

#: A number of rows, and the sum of their digests.
Totals = tuple[int, Decimal]
Rows = list[tuple[Any, ...]]


def small_tables(source: Cursor, buckets: Collection[int], tables: Collection[Table], most: int) -> list[Table]:
    """Return those of some tables that have no more rows of the buckets than that."""
    found = _asked(
        source,
        (
            SQL("SELECT {}, count(*) FROM (SELECT FROM {} WHERE {} LIMIT {}) AS few").format(
                Literal(table.name), s.table_name(table), s.in_buckets(buckets), Literal(most + 1)
            )
            for table in tables
        ),
    )
    rows: dict[str, int] = dict(found)
    return [table for table in tables if rows[table.name] <= most]


def digests(source: Cursor, target: Cursor, facts: MoveFacts, tables: Collection[Table]) -> dict[str, list[Totals]]:
    """Return the totals of tables on both sides, by name."""
    return _both(source, target, facts, tables, {table.name: s.digest_of(table) for table in tables})


def counts(source: Cursor, target: Cursor, facts: MoveFacts, tables: Collection[Table]) -> dict[str, list[Totals]]:
    """Return the numbers of rows on both sides, by name, with 0 for the digests."""
    return _both(source, target, facts, tables, {table.name: NUMBERS for table in tables})


def totals_alike(source: Cursor, target: Cursor, several: Sequence[MoveFacts]) -> dict[int, dict[str, Totals]]:
    """Return the totals of all tables, by bucket and name, of those of several buckets that are alike."""
    buckets, tables = [facts.bucket for facts in several], several[0].tables
    questions = [
        SQL("SELECT {}, bucket, {} FROM {} WHERE {} GROUP BY bucket").format(
            Literal(table.name), s.digest_of(table), s.table_name(table), s.in_buckets(buckets)
        )
        for table in tables
    ]
    sent, arrived = _asked_both(source, target, questions)
    unlike = {bucket for _, bucket, *_ in {*sent} ^ {*arrived}}
    found = {bucket: {table.name: (0, Decimal(0)) for table in tables} for bucket in buckets if bucket not in unlike}
    for name, bucket, count, digest in sent:
        if bucket in found:
            found[bucket][name] = (count, Decimal(digest))
    return found


def alike(
    source: Cursor, target: Cursor, several: Sequence[tuple[MoveFacts, Keys]], known: Mapping[int, Collection[str]]
) -> set[int]:
    """
    Return those of several buckets of which the numbers of all rows are alike, and the rows with some keys.

    Args:
        known: the tables, by bucket, whose numbers need not be compared.
    """
    questions = [
        SQL("SELECT {}, bucket, {} FROM {} WHERE {} GROUP BY bucket").format(
            Literal(table.name), NUMBERS, s.table_name(table), s.in_buckets(buckets)
        )
        for table in several[0][0].tables
        if (buckets := [facts.bucket for facts, _ in several if table.name not in known.get(facts.bucket, ())])
    ]
    questions += [
        SQL("SELECT {}, {}, {} FROM {} WHERE {} AND {}").format(
            Literal(f"written in {name}"),
            Literal(facts.bucket),
            s.digest_of(facts.table(name)),
            s.table_name(facts.table(name)),
            s.in_bucket(facts.bucket),
            s.among(facts.table(name), written),
        )
        for facts, keys in several
        for name, written in dict(keys).items()
        if written
    ]
    sent, arrived = _asked_both(source, target, questions) if questions else ([], [])
    return {facts.bucket for facts, _ in several} - {bucket for _, bucket, *_ in {*sent} ^ {*arrived}}


def _both(
    source: Cursor, target: Cursor, facts: MoveFacts, tables: Collection[Table], wanted: dict[str, Composed]
) -> dict[str, list[Totals]]:
    if not tables:
        return {}
    questions = [
        SQL("SELECT {}, {} FROM {} WHERE {}").format(
            Literal(table.name), wanted[table.name], s.table_name(table), s.in_bucket(facts.bucket)
        )
        for table in tables
    ]
    sent, arrived = _asked_both(source, target, questions)
    theirs = {name: (count, Decimal(digest)) for name, count, digest in arrived}
    return {name: [(count, Decimal(digest)), theirs[name]] for name, count, digest in sent}


def _asked_both(source: Cursor, target: Cursor, questions: Sequence[Composed]) -> tuple[Rows, Rows]:
    with ThreadPoolExecutor(1) as at_once:
        other = at_once.submit(_asked, target, questions)
        sent = _asked(source, questions)
    return sent, other.result()


def _asked(cursor: Cursor, questions: Iterable[Composed]) -> Rows:
    return cursor.execute(SQL(" UNION ALL ").join(list(questions))).fetchall()

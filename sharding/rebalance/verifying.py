"""
Compare the rows of a bucket on both shards: by digests of ranges, and where two differ, row by row.

The source's rows and its log are read in one snapshot, so that a row which is not on the target yet is told from one
that is lost: the first is in the log. On the target nobody writes the bucket but the mover.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal

from psycopg.sql import SQL, Composed

from sharding.bucket_states import BucketState
from sharding.errors import VerificationFailed
from sharding.rebalance import statements as s
from sharding.rebalance.facts import GETTING, GIVING, MoveFacts
from sharding.rebalance.refreshing import Keys
from sharding.rebalance.report import MOST_NAMED, Difference, Orphans, Report, TableReport, shown
from sharding.rebalance.sessions import Cursor, Sessions, snapshot
from sharding.rebalance.tables import ForeignKey, Table

#: Rows of a range, and those that are compared singly at once.
RANGE = 20_000
SINGLY = 500


def _nothing() -> None:
    pass


def verify(
    sessions: Sessions,
    facts: MoveFacts,
    *,
    only: Keys | None = None,
    getting: Collection[BucketState] = GETTING,
    pause: Callable[[], None] = _nothing,
) -> Report:
    """
    Compare every row of the bucket on both shards, and return a report of it.

    Rows that the log names are told as pending: bring them over, and compare them with ``only``.

    Args:
        only: the keys of rows, by table, that are compared beside the numbers of rows; None for all.
        getting: the states that the bucket may have on the target.
        pause: called between ranges of rows; it may wait, or raise to stop.

    Raises:
        VerificationFailed: a row is not the same, or on one shard alone, and not in the log. It has the report.
        Superseded: another attempt has taken over.
    """
    begun = time.monotonic()
    tables: list[TableReport] = []
    differences: list[Difference] = []
    for table in facts.tables:
        with (
            snapshot(sessions.source, facts.bucket, generation=facts.generation, states=GIVING) as source,
            snapshot(sessions.target, facts.bucket, generation=facts.generation, states=getting) as target,
        ):
            compared = _Comparison(source, target, facts, table)
            if only is None:
                compared.compare_all(pause)
            else:
                compared.compare_keys(only.get(table.name, ()))
            tables.append(compared.report())
            differences.extend(compared.differences)
    with snapshot(sessions.target, facts.bucket, generation=facts.generation, states=getting) as target:
        orphans = tuple(_orphans(target, facts))
    report = Report(
        bucket=facts.bucket,
        generation=facts.generation,
        source=sessions.source.alias,
        target=sessions.target.alias,
        tables=tuple(tables),
        differences=tuple(differences[:MOST_NAMED]),
        different=len(differences),
        orphans=orphans,
        seconds=round(time.monotonic() - begun, 3),
    )
    if not report.sound:
        raise VerificationFailed(
            f"Bucket {facts.bucket} is not the same on {report.source!r} and {report.target!r}: {report}. The bucket "
            f"stays on {report.source!r}. Find out who has written to {report.target!r}, and start the move again.",
            report=report,
        )
    return report


@dataclass(slots=True)
class _Comparison:
    """The rows of one table."""

    source: Cursor
    target: Cursor
    facts: MoveFacts
    table: Table
    differences: list[Difference] = field(default_factory=list)
    pending: set[str] = field(default_factory=set)
    sent: tuple[int, Decimal] = (0, Decimal(0))
    arrived: tuple[int, Decimal] = (0, Decimal(0))

    def compare_all(self, pause: Callable[[], None] = _nothing) -> None:
        """Compare range after range, up to the last one, which has no end: each row of either side is in one."""
        for limits in self._ranges():
            pause()
            where = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.in_range(self.table, limits))
            if self._differ(where):
                self._compare_rows(self._hashes(self.source, where), self._hashes(self.target, where))

    def compare_keys(self, keys: Collection[str]) -> None:
        """Compare the rows with some keys, and the number of all."""
        where = s.in_bucket(self.facts.bucket)
        if keys:
            these = SQL("{} AND {}").format(where, s.among(self.table, keys))
            if self._differ(these):
                self._compare_rows(self._hashes(self.source, these), self._hashes(self.target, these))
        numbers = [_count(cursor, self.table, where) for cursor in (self.source, self.target)]
        self.sent, self.arrived = (numbers[0], self.sent[1]), (numbers[1], self.arrived[1])
        if numbers[0] != numbers[1]:
            self.sent = self.arrived = (0, Decimal(0))
            self.differences.clear()
            self.compare_all()

    def report(self) -> TableReport:
        return TableReport(
            self.table.name,
            self.sent[0],
            self.arrived[0],
            str(self.sent[1]),
            str(self.arrived[1]),
            len(self.pending),
        )

    def _differ(self, where: Composed) -> bool:
        query = SQL("SELECT {} FROM {} WHERE {}").format(s.digest_of(self.table), s.table_name(self.table), where)
        with ThreadPoolExecutor(1) as at_once:
            other = at_once.submit(_totals, self.target, query)
            sent = _totals(self.source, query)
        arrived = other.result()
        self.sent = (self.sent[0] + sent[0], self.sent[1] + sent[1])
        self.arrived = (self.arrived[0] + arrived[0], self.arrived[1] + arrived[1])
        return sent != arrived

    def _ranges(self) -> Iterator[s.KeyRange]:
        after: str | None = None
        while True:
            where = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.in_range(self.table, s.KeyRange(after)))
            names = s.names(self.table.key)
            query = SQL("SELECT {}::text FROM (SELECT {} FROM {} WHERE {} ORDER BY {} OFFSET {} LIMIT 1) AS x").format(
                s.key_of(self.table), names, s.table_name(self.table), where, names, s.number(RANGE - 1)
            )
            found = self.source.execute(query).fetchone()
            yield s.KeyRange(after, found[0] if found else None)
            if found is None:
                return
            after = found[0]

    def _hashes(self, cursor: Cursor, where: Composed) -> dict[str, int]:
        cursor.execute(
            SQL("SELECT {}::text, {} FROM {} WHERE {}").format(
                s.key_of(self.table), s.hash_of(self.table), s.table_name(self.table), where
            )
        )
        return dict(cursor.fetchall())

    def _compare_rows(self, sent: Mapping[str, int], arrived: Mapping[str, int]) -> None:
        suspects = sorted(key for key in sent.keys() | arrived.keys() if sent.get(key) != arrived.get(key))
        for place in range(0, len(suspects), SINGLY):
            self._compare_singly(suspects[place : place + SINGLY])

    def _compare_singly(self, keys: list[str]) -> None:
        """Ask both sides for rows by their keys: servers may sort text differently, and put a row into other ranges."""
        known = self._logged(keys)
        sent, arrived = self._values(self.source, keys), self._values(self.target, keys)
        for key in keys:
            ours, theirs = sent.get(key), arrived.get(key)
            if ours == theirs:
                continue
            if key in known:
                self.pending.add(key)
            elif ours is None or theirs is None:
                kind = "missing" if theirs is None else "extra"
                self.differences.append(Difference(self.table.name, key, kind, {}))
            else:
                self.differences.append(Difference(self.table.name, key, "changed", self._columns(ours, theirs)))

    def _columns(self, ours: list[str | None], theirs: list[str | None]) -> dict[str, tuple[str, str]]:
        pairs = zip(self.table.copied, ours, theirs, strict=True)
        return {column.name: (shown(column.name, a), shown(column.name, b)) for column, a, b in pairs if a != b}

    def _values(self, cursor: Cursor, keys: list[str]) -> dict[str, list[str | None]]:
        # As the digest sees them: char(n), for one, loses its blanks in a plain cast to text.
        cursor.execute(
            SQL("SELECT {}::text, {} FROM {} WHERE {} AND {}").format(
                s.key_of(self.table),
                s.forms_of(self.table.copied),
                s.table_name(self.table),
                s.in_bucket(self.facts.bucket),
                s.among(self.table, keys),
            )
        )
        return dict(cursor.fetchall())

    def _logged(self, keys: list[str]) -> set[str]:
        """Return those of the keys that the log names, in whichever way it writes them."""
        self.source.execute(
            SQL("SELECT key::text FROM sharding_dirty WHERE bucket = %s AND table_name = %s"),
            [self.facts.bucket, self.table.name],
        )
        logged = {key for (key,) in self.source}
        if not logged:
            return set()
        self.source.execute(
            SQL("SELECT DISTINCT asked.key::text FROM {} JOIN {} ON {}").format(
                s.given(keys, "asked"), s.given(logged), s.is_same(self.table, "asked")
            )
        )
        return {key for (key,) in self.source}


def _totals(cursor: Cursor, query: Composed) -> tuple[int, Decimal]:
    found = cursor.execute(query).fetchone()
    assert found is not None
    return found[0], Decimal(found[1])


def _count(cursor: Cursor, table: Table, where: Composed) -> int:
    found = cursor.execute(SQL("SELECT count(*) FROM {} WHERE {}").format(s.table_name(table), where)).fetchone()
    assert found is not None
    return int(found[0])


def _orphans(target: Cursor, facts: MoveFacts) -> Iterator[Orphans]:
    for table in facts.tables:
        for foreign_key in table.foreign_keys:
            rows = _orphans_of(target, facts, table, foreign_key)
            if rows:
                yield Orphans(table.name, foreign_key.name, rows)


def _orphans_of(target: Cursor, facts: MoveFacts, table: Table, foreign_key: ForeignKey) -> int:
    pairs = list(zip(foreign_key.columns, foreign_key.target_columns, strict=True))
    same = s.AND.join(SQL("{} = {}").format(s.name(own, "child"), s.name(other, "parent")) for own, other in pairs)
    refers = s.AND.join(SQL("{} IS NOT NULL").format(s.name(own, "child")) for own, _ in pairs)
    found = target.execute(
        SQL(
            "SELECT count(*) FROM {} AS child WHERE {} AND {} AND NOT EXISTS (SELECT FROM {} AS parent WHERE {})"
        ).format(s.table_name(table), s.in_bucket(facts.bucket, "child"), refers, s.name(foreign_key.target), same)
    ).fetchone()
    assert found is not None
    return int(found[0])

"""
Compare one table of a bucket on both shards: by digests of ranges, and where two differ, row by row.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal

from psycopg.sql import SQL, Composed

from sharding.rebalance import statements as s
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.report import Difference, TableReport, shown
from sharding.rebalance.sessions import Cursor
from sharding.rebalance.tables import Table

#: Rows of a range, and those that are compared singly at once.
RANGE = 20_000
SINGLY = 500
NUMBERS = SQL("count(*), 0::numeric").format()


def nothing() -> None:
    pass


@dataclass(slots=True)
class Comparison:
    """The rows of one table."""

    source: Cursor
    target: Cursor
    facts: MoveFacts
    table: Table
    differences: list[Difference] = field(default_factory=list)
    pending: set[str] = field(default_factory=set)
    sent: tuple[int, Decimal] = (0, Decimal(0))
    arrived: tuple[int, Decimal] = (0, Decimal(0))

    def compare_all(self, pause: Callable[[], None] = nothing) -> None:
        """Compare range after range, up to the last one, which has no end: each row of either side is in one."""
        for limits in self._ranges():
            pause()
            where = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.in_range(self.table, limits))
            if self._differ(where):
                self._compare_rows(self._hashes(self.source, where), self._hashes(self.target, where))

    def compare_numbers(self, pause: Callable[[], None] = nothing) -> bool:
        """Return whether both sides have equally many rows beside those that the log names."""
        others = SQL("NOT {}").format(s.among(self.table, self._logged()))
        self.sent = self.arrived = (0, Decimal(0))
        for limits in self._ranges():
            pause()
            where = (s.in_bucket(self.facts.bucket), s.in_range(self.table, limits), others)
            self._differ(s.AND.join(where), NUMBERS)
        return self.sent == self.arrived

    def compare_keys(self, keys: Collection[str]) -> None:
        """Compare the rows with some keys; the numbers of all are known."""
        numbers = self.sent[0]
        these = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.among(self.table, keys))
        self.sent = self.arrived = (0, Decimal(0))
        if self._differ(these):
            self._compare_rows(self._hashes(self.source, these), self._hashes(self.target, these))
        self.sent, self.arrived = (numbers, self.sent[1]), (numbers, self.arrived[1])

    def report(self) -> TableReport:
        return TableReport(
            self.table.name,
            self.sent[0],
            self.arrived[0],
            str(self.sent[1]),
            str(self.arrived[1]),
            len(self.pending),
        )

    def _differ(self, where: Composed, what: Composed | None = None) -> bool:
        what = what or s.digest_of(self.table)
        query = SQL("SELECT {} FROM {} WHERE {}").format(what, s.table_name(self.table), where)
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
        known = self._logged_of(keys)
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

    def _logged(self) -> set[str]:
        self.source.execute(
            SQL("SELECT key::text FROM sharding_dirty WHERE bucket = %s AND table_name = %s"),
            [self.facts.bucket, self.table.name],
        )
        return {key for (key,) in self.source}

    def _logged_of(self, keys: list[str]) -> set[str]:
        """Return those of the keys that the log names, in whichever way it writes them."""
        logged = self._logged()
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

"""
Copy the rows of a bucket in chunks, each in one transaction with the note how far the copy has come.

A chunk is read in one snapshot with the log of what was written meanwhile. The rows that the log names go first, so
that what a chunk refers to is there. A mover that is killed anywhere goes on after the last chunk that was written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal

import psycopg
from psycopg.sql import SQL, Composed, Literal

from sharding.errors import CopyDamaged
from sharding.rebalance import progress as progresses
from sharding.rebalance import statements as s
from sharding.rebalance.capturing import BATCH, Entries, bring, forget, read
from sharding.rebalance.facts import GETTING, GIVING, MoveFacts
from sharding.rebalance.progress import Progress
from sharding.rebalance.refreshing import Way, damaged, in_the_cheapest_way
from sharding.rebalance.sessions import Cursor, Sessions, mover_transaction, snapshot
from sharding.rebalance.tables import Table

#: Rows of a chunk: the first one's, the fewest, the most, and the most of one whose rows are read and written singly.
FIRST, FEWEST, MOST, MOST_SINGLY = 5_000, 50, 200_000, 2_000


def nothing() -> None:
    pass


@dataclass(slots=True)
class Pace:
    """How fast to copy: adapts the size of chunks to the time they take, table by table."""

    #: Seconds that a chunk should take, for which the target's rows of the bucket are in one transaction.
    budget: float = 0.5
    #: The most rows a second, or None.
    rows_per_second: float | None = None
    #: Called between chunks; it may wait, or raise to stop the copy.
    pause: Callable[[], None] = nothing
    sizes: dict[str, int] = field(default_factory=dict)

    def size(self, table: Table) -> int:
        return self.sizes.get(table.name, FIRST)

    def took(self, table: Table, rows: int, seconds: float) -> None:
        """Learn from a chunk, and wait if it was too fast."""
        size = self.size(table)
        if rows >= size or seconds > self.budget:
            factor = min(2.0, max(0.25, self.budget / max(seconds, 0.001)))
            self.sizes[table.name] = round(min(MOST, max(FEWEST, size * factor)))
        if self.rows_per_second is not None:
            time.sleep(max(0.0, rows / self.rows_per_second - seconds))


@dataclass(frozen=True, slots=True)
class Copied:
    """What one step has copied; a table of None says that all are."""

    table: str | None
    rows: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class _Chunk:
    """The next rows of a table, in the source's snapshot."""

    table: Table
    limits: s.KeyRange
    #: Whether no row comes after it.
    ends: bool


def copy_all(sessions: Sessions, facts: MoveFacts, pace: Pace) -> int:
    """Copy chunk after chunk until nothing is left, and return the number of rows; see copy_chunk()."""
    rows = 0
    while True:
        pace.pause()
        copied = copy_chunk(sessions, facts, pace)
        rows += copied.rows
        if copied.table is None:
            return rows


def copy_chunk(sessions: Sessions, facts: MoveFacts, pace: Pace) -> Copied:
    """
    Copy the next rows of the bucket, and what was written meanwhile.

    The target must have no row of the bucket but those that a copy and its catching up have brought.

    Raises:
        Superseded: another attempt has taken over.
        CopyRefused: the target does not take a row.
        CopyDamaged: the target keeps something else than what it was given.
    """
    begun = time.monotonic()
    progress = _progress(sessions, facts)
    if progresses.next_table(facts, progress) is None:
        return Copied(None)
    with snapshot(sessions.source, facts.bucket, generation=facts.generation, states=GIVING) as source:
        empty = _without_rows(source, facts, progress)
        table = progresses.next_table(facts, progress, empty)
        if table is None:
            _pass_over(sessions, facts, progress, empty)
            return Copied(None)
        entries = read(source, facts, BATCH)
        rows = _Copy(sessions, facts, source, entries, progress, table, empty).write(pace.size(table))
    forget(sessions.source, facts, entries)
    seconds = time.monotonic() - begun
    pace.took(table, rows, seconds)
    return Copied(table.name, rows, seconds)


def _progress(sessions: Sessions, facts: MoveFacts) -> dict[str, Progress]:
    with snapshot(sessions.target, facts.bucket, generation=facts.generation, states=GETTING) as cursor:
        return progresses.read(cursor, facts)


def _without_rows(source: Cursor, facts: MoveFacts, progress: Mapping[str, Progress]) -> list[Table]:
    """Return the tables that are still to be copied and have no row of the bucket: in one statement for all of them."""
    left = [table for table in facts.tables if progress[table.name] == Progress()]
    if not left:
        return []
    questions = [
        SQL("SELECT {} WHERE NOT EXISTS (SELECT FROM {} WHERE {})").format(
            Literal(table.name), s.table_name(table), s.in_bucket(facts.bucket)
        )
        for table in left
    ]
    names = {name for (name,) in source.execute(SQL(" UNION ALL ").join(questions))}
    return [table for table in left if table.name in names]


def _pass_over(
    sessions: Sessions, facts: MoveFacts, progress: Mapping[str, Progress], tables: Collection[Table]
) -> None:
    with mover_transaction(sessions.target, facts.bucket, generation=facts.generation, states=GETTING) as target:
        progresses.write_all(target, facts, {table: progress[table.name].ended() for table in tables})


@dataclass(frozen=True, slots=True)
class _Copy:
    """One chunk on its way."""

    sessions: Sessions
    facts: MoveFacts
    source: Cursor
    entries: Entries
    progress: Mapping[str, Progress]
    table: Table
    #: Tables that have nothing to copy, which is noted on the way.
    empty: Collection[Table] = ()

    def write(self, size: int) -> int:
        """Write a chunk of at most so many rows, and return how many it had."""
        if not self.table.cyclic:
            chunk = self._chunk(size)
            try:
                return self._write(chunk, Way.ALONE, self._pipe)
            except (psycopg.IntegrityError, CopyDamaged):
                # Something is missing, or there already: rather find out what than why.
                pass
        chunk = self._chunk(min(size, MOST_SINGLY))
        ways = (Way.TOGETHER, Way.ANEW)
        alias = self.sessions.target.alias
        return in_the_cheapest_way(alias, lambda way: self._write(chunk, way, self._singly), ways)

    def _write(self, chunk: _Chunk, way: Way, write: Callable[[Cursor, _Chunk, Way], tuple[int, Decimal]]) -> int:
        facts = self.facts
        with mover_transaction(
            self.sessions.target, facts.bucket, generation=facts.generation, states=GETTING
        ) as target:
            rows, digest = write(target, chunk, way)
            grown = self.progress[chunk.table.name].grown(
                last=chunk.limits.last, rows=rows, digest=digest, done=chunk.ends
            )
            ended = {table: self.progress[table.name].ended() for table in self.empty}
            progresses.write_all(target, facts, {chunk.table: grown, **ended})
        return rows

    def _pipe(self, target: Cursor, chunk: _Chunk, way: Way) -> tuple[int, Decimal]:
        """Let the rows flow from one server to the other, and compare what has arrived."""
        self._bring(target, way, {})
        if chunk.limits.last is None:
            return 0, Decimal(0)
        where = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.in_range(chunk.table, chunk.limits))
        pipe(self.source, target, chunk.table, where)
        with ThreadPoolExecutor(1) as at_once:
            sent = at_once.submit(_digest, self.source, chunk.table, where)
            arrived = _digest(target, chunk.table, where)
        rows, digest = sent.result()
        if arrived != (rows, digest) and not self._is_there(target, chunk, where, rows, digest):
            raise damaged(chunk.table, self.sessions.target.alias, chunk.limits.after, chunk.limits.last)
        return rows, digest

    def _is_there(self, target: Cursor, chunk: _Chunk, where: Composed, rows: int, digest: Decimal) -> bool:
        """Compare by keys: where the servers sort text differently, other rows are between two keys."""
        keys = self._keys(where, chunk.table)
        return _digest(target, chunk.table, s.among(chunk.table, keys)) == (rows, digest)

    def _singly(self, target: Cursor, chunk: _Chunk, way: Way) -> tuple[int, Decimal]:
        """Bring the rows one by one, with all to which they refer, whether any of them is there already or not."""
        if chunk.limits.last is None:
            self._bring(target, way, {})
            return 0, Decimal(0)
        where = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.in_range(chunk.table, chunk.limits))
        self._bring(target, way, {chunk.table.name: self._keys(where, chunk.table)})
        return _digest(self.source, chunk.table, where)

    def _bring(self, target: Cursor, way: Way, also: Mapping[str, set[str]]) -> None:
        if self.entries.numbers or also:
            alias = self.sessions.target.alias
            bring(self.source, target, self.facts, alias, self.entries, self.progress, way, also)

    def _keys(self, where: Composed, table: Table) -> set[str]:
        self.source.execute(SQL("SELECT {}::text FROM {} WHERE {}").format(s.key_of(table), s.table_name(table), where))
        return {key for (key,) in self.source}

    def _chunk(self, size: int) -> _Chunk:
        """Return the limits of the next rows."""
        after = self.progress[self.table.name].last
        where = SQL("{} AND {}").format(s.in_bucket(self.facts.bucket), s.in_range(self.table, s.KeyRange(after)))
        order = s.names(self.table.key)
        # The rows that are skipped have no JSON made of them.
        query = SQL("SELECT {}::text FROM (SELECT {} FROM {} WHERE {} ORDER BY {} OFFSET {} LIMIT 2) AS ends").format(
            s.key_of(self.table), order, s.table_name(self.table), where, order, Literal(size - 1)
        )
        found = self.source.execute(query).fetchall()
        if found:
            return _Chunk(self.table, s.KeyRange(after, found[0][0]), ends=len(found) == 1)
        descending = s.COMMA.join(SQL("{} DESC").format(s.name(column.name)) for column in self.table.key)
        query = SQL("SELECT {}::text FROM {} WHERE {} ORDER BY {} LIMIT 1").format(
            s.key_of(self.table), s.table_name(self.table), where, descending
        )
        last = self.source.execute(query).fetchone()
        return _Chunk(self.table, s.KeyRange(after, last[0] if last else None), ends=True)


def pipe(source: Cursor, target: Cursor, table: Table, where: Composed) -> None:
    """Let rows of the source's table flow into the target's."""
    form = SQL("(FORMAT BINARY)" if table.binary else "(FORMAT TEXT)")
    reading = SQL("COPY (SELECT {} FROM {} WHERE {}) TO STDOUT {}").format(
        s.names(table.copied), s.table_name(table), where, form
    )
    writing = SQL("COPY {} ({}) FROM STDIN {}").format(s.table_name(table), s.names(table.copied), form)
    with source.copy(reading) as rows, target.copy(writing) as into:
        for block in rows:
            into.write(block)


def _digest(cursor: Cursor, table: Table, where: Composed) -> tuple[int, Decimal]:
    cursor.execute(SQL("SELECT {} FROM {} WHERE {}").format(s.digest_of(table), s.table_name(table), where))
    found = cursor.fetchone()
    assert found is not None
    return found[0], Decimal(found[1])

"""
Take the rows of buckets away from a shard: what an earlier attempt has left, or what has been moved.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import groupby

from psycopg.sql import SQL, Composed, Literal

from sharding.bucket_states import BucketState
from sharding.rebalance import statements as s
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.sessions import Cursor, Session, mover_transaction
from sharding.rebalance.tables import Table

#: Rows that are deleted in one transaction.
BATCH = 5000
#: States in which a shard has rows of a bucket that nobody is to see.
PURGED = frozenset({BucketState.IMPORTING, BucketState.MOVED})


def nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Purge:
    """Buckets on one shard that are in the hands of one attempt, and whose rows are to go."""

    session: Session
    facts: Sequence[MoveFacts]
    states: Collection[BucketState] = PURGED
    batch: int = BATCH
    #: Called between transactions; it may wait, or raise to stop.
    pause: Callable[[], None] = nothing

    def run(self) -> int:
        """
        Delete the buckets' rows, those first that refer to others, with their log and progress. Return how many.

        The progress goes first, so that no copy goes on over what is being deleted. May be repeated at any time.

        Raises:
            Superseded: another attempt has taken over, or a bucket is in none of ``states`` here.
            psycopg.IntegrityError: a row of another bucket, or of no sharded model, refers to one of these.
        """
        with self._transaction() as cursor:
            for table in ("sharding_progress", "sharding_dirty"):
                cursor.execute(SQL("DELETE FROM {} WHERE {}").format(s.name(table), s.in_buckets(self._buckets)))
        deleted = 0
        # What a circle refers to goes after it, and what refers to it before.
        for cyclic, tables in groupby(reversed(self._tables), lambda table: table.cyclic):
            empty = self._empty_circles if cyclic else self._empty_all
            deleted += empty(list(tables))
        return deleted

    def _empty_all(self, tables: Sequence[Table]) -> int:
        deleted = now = self._empty_some(tables)
        while now >= self.batch:
            now = self._empty_some(tables)
            deleted += now
        return deleted

    def _empty_some(self, tables: Sequence[Table]) -> int:
        """Delete a batch of rows in one transaction, from as many tables as it takes; fewer if none is left."""
        self.pause()
        deleted = 0
        with self._transaction() as cursor:
            for table in tables:
                if deleted < self.batch:
                    deleted += self._delete(cursor, table, self.batch - deleted, None)
        return deleted

    def _empty(self, table: Table, unless: Composed) -> int:
        deleted = 0
        while True:
            self.pause()
            with self._transaction() as cursor:
                now = self._delete(cursor, table, self.batch, unless)
            deleted += now
            if now == 0:
                return deleted

    def _empty_circles(self, circles: Sequence[Table]) -> int:
        """Delete rows to which none refers, again and again; and those that are left, all at once."""
        deleted, now = 0, -1
        while now:
            now = sum(self._empty(table, self._is_referred_to(table)) for table in circles)
            deleted += now
        with self._transaction() as cursor:
            return deleted + sum(self._delete(cursor, table, None, None) for table in circles)

    def _delete(self, cursor: Cursor, table: Table, batch: int | None, unless: Composed | None) -> int:
        where = s.in_buckets(self._buckets, "t")
        if unless is not None:
            where = SQL("{} AND NOT {}").format(where, unless)
        limit = SQL("LIMIT {}").format(Literal(batch))
        cursor.execute(
            SQL("DELETE FROM {} WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM {} AS t WHERE {} {}))").format(
                s.table_name(table), s.table_name(table), where, limit
            )
        )
        return cursor.rowcount

    def _is_referred_to(self, table: Table) -> Composed:
        conditions = [Composed([SQL("false")])]
        for other in self._tables:
            for foreign_key in other.foreign_keys:
                if foreign_key.target == table.name:
                    pairs = zip(foreign_key.columns, foreign_key.target_columns, strict=True)
                    same = s.AND.join(SQL("{} = {}").format(s.name(a, "child"), s.name(b, "t")) for a, b in pairs)
                    conditions.append(
                        SQL("EXISTS (SELECT FROM {} AS child WHERE {})").format(s.table_name(other), same)
                    )
        return SQL("({})").format(SQL(" OR ").join(conditions))

    def _transaction(self) -> AbstractContextManager[Cursor]:
        generation = self.facts[0].generation
        return mover_transaction(self.session, self._buckets, generation=generation, states=self.states)

    @property
    def _buckets(self) -> list[int]:
        return [each.bucket for each in self.facts]

    @property
    def _tables(self) -> tuple[Table, ...]:
        return self.facts[0].tables

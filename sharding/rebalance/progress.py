"""
How far a copy has come, table by table: kept where the rows go, in the transaction in which they are written.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal

from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.sessions import Cursor
from sharding.rebalance.tables import Table

#: Rows of a table whose arrival makes its statistics useless.
MANY = 20_000


@dataclass(frozen=True, slots=True)
class Progress:
    """What is copied of one table: its rows up to the key ``last``, or all."""

    last: str | None = None
    rows: int = 0
    digest: Decimal = Decimal(0)
    done: bool = False

    def ended(self) -> Progress:
        return Progress(self.last, self.rows, self.digest, done=True)

    def grown(self, *, last: str | None, rows: int, digest: Decimal, done: bool) -> Progress:
        return Progress(last if last is not None else self.last, self.rows + rows, self.digest + digest, done)


def read(cursor: Cursor, facts: MoveFacts) -> dict[str, Progress]:
    """Return the progress of each table of a move, whichever attempt has made it."""
    cursor.execute(
        "SELECT table_name, last::text, rows, digest, done FROM sharding_progress WHERE bucket = %s", [facts.bucket]
    )
    found = {name: Progress(*rest) for name, *rest in cursor.fetchall()}
    return {table.name: found.get(table.name, Progress()) for table in facts.tables}


def large_tables(cursor: Cursor, buckets: Collection[int]) -> list[str]:
    """Return the tables of which many rows of some buckets have been copied."""
    cursor.execute(
        "SELECT table_name FROM sharding_progress WHERE bucket = ANY(%s) GROUP BY table_name HAVING sum(rows) > %s",
        [[*buckets], MANY],
    )
    return [name for (name,) in cursor]


def write_all(cursor: Cursor, facts: MoveFacts, grown: Mapping[Table, Progress]) -> None:
    """Keep the progress of tables, in the cursor's transaction."""
    lines = [
        (facts.bucket, table.name, facts.generation, each.last, each.rows, each.digest, each.done)
        for table, each in grown.items()
    ]
    cursor.execute(
        """
        INSERT INTO sharding_progress (bucket, table_name, generation, last, rows, digest, done)
        SELECT bucket, name, generation, last::jsonb, rows, digest, done
        FROM unnest(%s::smallint[], %s::text[], %s::bigint[], %s::text[], %s::bigint[], %s::numeric[], %s::boolean[])
             AS line (bucket, name, generation, last, rows, digest, done)
        ON CONFLICT (bucket, table_name) DO UPDATE SET generation = excluded.generation, last = excluded.last,
            rows = excluded.rows, digest = excluded.digest, done = excluded.done
        """,
        [list(column) for column in zip(*lines, strict=True)] if lines else [[]] * 7,
    )


def next_table(facts: MoveFacts, progress: Mapping[str, Progress], empty: Collection[Table] = ()) -> Table | None:
    """
    Return the table that is to be copied now: each after those to which it refers. None when all are.

    Args:
        empty: tables without rows, which count as copied.
    """
    left = (table for table in facts.tables if not progress[table.name].done)
    return next((table for table in left if table not in empty), None)

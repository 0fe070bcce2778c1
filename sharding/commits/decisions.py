"""
The decisions: one row of the control database says whether a transaction over several databases is committed.

Whoever inserts the row first decides. The coordinator inserts "committed" together with the control database's own part
of the work; a resolver that finds a transaction undecided inserts "aborted", the tombstone, under the same primary key.
Tombstones stay for ever: a coordinator may sleep for as long as it likes between its question and its answer.
"""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

TABLE = "sharding_decision"

#: Decisions of this process that every database has carried out, and whose rows are to be deleted.
carried_out: deque[str] = deque()
#: How many are deleted at a time.
BATCH = 100
#: A condition that is true, and lets a transaction that would not wait for the disk do so: a decision that a crash of
#: the server forgot would leave its block half committed.
DURABLE = (
    "CASE current_setting('synchronous_commit') WHEN 'off' "
    "THEN set_config('synchronous_commit', 'local', true) ELSE '' END IS NOT NULL"
)
#: Seconds that a tombstone waits for a decision that is being committed.
PATIENCE = 5


def decide(cursor: Any, transaction: str, aliases: Sequence[str]) -> bool:
    """
    Decide, in the open transaction of ``cursor``, that ``transaction`` is committed on ``aliases``.

    Return False when a tombstone stands there already.
    """
    cursor.execute(
        f"INSERT INTO {TABLE} (transaction, committed, aliases, decided) "
        f"SELECT %s, true, %s, clock_timestamp() WHERE {DURABLE} ON CONFLICT (transaction) DO NOTHING",
        [transaction, json.dumps(list(aliases))],
    )
    return bool(cursor.rowcount)


def refuse(cursor: Any, transaction: str) -> bool | None:
    """
    Decide that ``transaction`` is aborted, unless it is decided; return the verdict that stands, committed or not.

    It waits a while for a coordinator that is committing its decision. None: every database had carried out the
    decision, and it was forgotten in this instant. ``cursor`` must be in autocommit.

    Raises:
        OperationalError: the coordinator did not finish within PATIENCE.
    """
    # A stricter isolation would not see what a coordinator commits meanwhile, and fail.
    cursor.execute("BEGIN ISOLATION LEVEL READ COMMITTED")
    try:
        # Local, because a pooler would hand it to the next client.
        cursor.execute(f"SET LOCAL lock_timeout = '{PATIENCE}s'")
        cursor.execute(
            f"INSERT INTO {TABLE} (transaction, committed, aliases, decided) "
            f"SELECT %s, false, '[]', clock_timestamp() WHERE {DURABLE} ON CONFLICT (transaction) DO NOTHING",
            [transaction],
        )
        inserted = cursor.rowcount
    except BaseException:
        cursor.execute("ROLLBACK")
        raise
    cursor.execute("COMMIT")
    return False if inserted else verdict(cursor, transaction)


def verdict(cursor: Any, transaction: str) -> bool | None:
    """Return whether ``transaction`` is committed; None when nobody has decided, or all of it is forgotten."""
    cursor.execute(f"SELECT committed FROM {TABLE} WHERE transaction = %s", [transaction])
    row = cursor.fetchone()
    return None if row is None else bool(row[0])


def committed(cursor: Any) -> dict[str, list[str]]:
    """Return the decisions to commit that are not forgotten yet: {transaction: aliases}."""
    cursor.execute(f"SELECT transaction, aliases FROM {TABLE} WHERE committed ORDER BY decided")
    return {transaction: json.loads(text) for transaction, text in cursor.fetchall()}


def to_forget() -> list[str]:
    """Return a batch of the decisions that this process may forget, and keep no note of them; often there is none."""
    found: list[str] = []
    for _ in range(BATCH if len(carried_out) >= BATCH else 0):
        # Another thread may have taken some of them.
        with suppress(IndexError):
            found.append(carried_out.popleft())
    return found


def forget(cursor: Any, transactions: Sequence[str]) -> None:
    """Delete the decisions of transactions that every database has carried out."""
    cursor.execute(f"DELETE FROM {TABLE} WHERE transaction = ANY(%s) AND committed", [list(transactions)])


# They are the parent's to forget.
os.register_at_fork(after_in_child=carried_out.clear)

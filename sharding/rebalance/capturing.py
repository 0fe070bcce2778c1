"""
Bring over what is written while a bucket is being copied: the log has the keys of rows, and a row is read anew.

An entry goes when its row is on the target, by its own number: entries appear in another order than their numbers'.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from psycopg.sql import SQL

from sharding.rebalance import progress as progresses
from sharding.rebalance import statements as s
from sharding.rebalance.facts import GETTING, GIVING, MoveFacts
from sharding.rebalance.progress import Progress
from sharding.rebalance.refreshing import Keys, Way, existing, in_the_cheapest_way, refresh
from sharding.rebalance.sessions import Cursor, Session, Sessions, mover_transaction, snapshot
from sharding.rebalance.tables import Table

#: Entries of the log that are read at once.
BATCH = 2000

_FORGET = """
DELETE FROM sharding_dirty WHERE seq = ANY(%s::bigint[])
AND EXISTS (SELECT FROM sharding_fence WHERE bucket = %s AND generation = %s)
"""


@dataclass(frozen=True, slots=True)
class Entries:
    """Some entries of the log: their numbers, and what they name."""

    numbers: tuple[int, ...] = ()
    keys: Keys = ()  # type: ignore[assignment]
    #: How many more there were.
    left: int = 0


@dataclass(frozen=True, slots=True)
class Drained:
    """What one step has brought over, and how many entries it has left."""

    done: int
    left: int
    keys: Keys


def drain(sessions: Sessions, facts: MoveFacts, *, batch: int = BATCH) -> Drained:
    """
    Bring over the rows that the oldest entries of the log name, and take these entries away.

    Entries for rows that are still to be copied are taken away alone: the copy will find their rows as they are then.
    May be repeated at any time, and after any failure.

    Raises:
        Superseded: another attempt has taken over.
        CopyRefused: the target does not take a row.
        CopyDamaged: the target keeps something else than what it was given.
    """
    with snapshot(sessions.source, facts.bucket, generation=facts.generation, states=GIVING) as source:
        entries = read(source, facts, batch)
        if entries.numbers:
            in_the_cheapest_way(sessions.target.alias, lambda way: _bring(sessions, facts, source, entries, way))
    forget(sessions.source, facts, entries)
    return Drained(len(entries.numbers), entries.left, entries.keys)


def noted(source: Session, buckets: Collection[int]) -> set[int]:
    """Return those of some buckets whose log has an entry."""
    found = source.connection.execute("SELECT DISTINCT bucket FROM sharding_dirty WHERE bucket = ANY(%s)", [[*buckets]])
    return {bucket for (bucket,) in found}


def read(source: Cursor, facts: MoveFacts, batch: int | None = BATCH) -> Entries:
    """Return the oldest entries of a bucket's log, or all of them, as the source's snapshot has them."""
    source.execute(
        "SELECT seq, table_name, key::text, count(*) OVER () FROM sharding_dirty WHERE bucket = %s "
        "ORDER BY seq LIMIT %s",
        [facts.bucket, batch],
    )
    rows = source.fetchall()
    keys: dict[str, set[str]] = {}
    for _, table, key, _ in rows:
        keys.setdefault(facts.table(table).name, set()).add(key)
    return Entries(tuple(row[0] for row in rows), keys, rows[0][3] - len(rows) if rows else 0)


def bring(
    source: Cursor,
    target: Cursor,
    facts: MoveFacts,
    alias: str,
    entries: Entries,
    progress: Mapping[str, Progress],
    way: Way,
    also: Keys | None = None,
) -> None:
    """Let the rows that entries name, and others, be on the target what they are in the source's snapshot."""
    if way is Way.ANEW:
        # What has a value that another row needs must have been written, too.
        entries = read(source, facts, None)
    due = {name: set(keys) for name, keys in (also or {}).items()}
    for name, keys in dict(entries.keys).items():
        table = facts.table(name)
        due.setdefault(name, set()).update(_due(source, target, facts, table, keys, progress[name]))
    refresh(source, target, facts, alias, due, way)


def forget(session: Session, facts: MoveFacts, entries: Entries) -> None:
    """
    Take entries away whose rows have been brought over.

    Raises:
        Superseded: another attempt has taken over.
    """
    if not entries.numbers:
        return
    # By itself, since this is done while nobody can write the bucket, too. What has been brought over may be forgotten
    # whoever has the move by now.
    done = session.connection.execute(_FORGET, [list(entries.numbers), facts.bucket, facts.generation])
    if not done.rowcount:
        with mover_transaction(session, facts.bucket, generation=facts.generation, states=GIVING):
            # They are gone already.
            pass


def _bring(sessions: Sessions, facts: MoveFacts, source: Cursor, entries: Entries, way: Way) -> None:
    target = sessions.target
    with mover_transaction(target, facts.bucket, generation=facts.generation, states=GETTING) as cursor:
        bring(source, cursor, facts, target.alias, entries, progresses.read(cursor, facts), way)


def _due(
    source: Cursor, target: Cursor, facts: MoveFacts, table: Table, keys: Collection[str], progress: Progress
) -> set[str]:
    """Return the keys of rows that no chunk is going to bring: they are copied already, or on the target, or gone."""
    if progress.done:
        return set(keys)
    # The order is that of the column's collation, so the row is asked, not the key.
    source.execute(
        SQL("SELECT given.key::text FROM {} JOIN {} AS t ON {} WHERE {} AND {}").format(
            s.given(keys),
            s.table_name(table),
            s.is_given(table, "t"),
            s.in_bucket(facts.bucket, "t"),
            s.in_range(table, s.KeyRange(after=progress.last), "t"),
        )
    )
    to_come = {key for (key,) in source}
    return set(keys) - to_come | existing(target, table, to_come)

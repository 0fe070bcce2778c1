"""
Compare the rows of a bucket on both shards: by digests of ranges, and where two differ, row by row.

The source's rows and its log are read in one snapshot, so that a row which is not on the target yet is told from one
that is lost: the first is in the log. On the target nobody writes the bucket but the mover.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from types import MappingProxyType

from sharding.bucket_states import BucketState
from sharding.errors import VerificationFailed
from sharding.rebalance import glance
from sharding.rebalance.comparing import RANGE, Comparison, nothing
from sharding.rebalance.facts import GETTING, GIVING, MoveFacts
from sharding.rebalance.orphans import orphans_of, with_orphans
from sharding.rebalance.refreshing import Keys
from sharding.rebalance.report import MOST_NAMED, Orphans, Report, TableReport
from sharding.rebalance.sessions import Buckets, Cursor, Sessions, snapshot


def verify(
    sessions: Sessions,
    facts: MoveFacts,
    *,
    only: Keys | None = None,
    getting: Collection[BucketState] = GETTING,
    pause: Callable[[], None] = nothing,
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
    both = _Both(sessions, facts, getting)
    compared = both.compare_all(pause) if only is None else both.compare_keys(only)
    tables = [compared[table.name].report() for table in facts.tables]
    differences = [each for table in facts.tables for each in compared[table.name].differences]
    orphans = both.orphans(only)
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
            f"stays on {report.source!r}. Find out who has written to {report.target!r}, a trigger perhaps, and start "
            f"the move again.",
            report=report,
        )
    return report


def verify_all(
    sessions: Sessions, several: Sequence[MoveFacts], *, pause: Callable[[], None] = nothing
) -> dict[int, Report]:
    """
    Compare every row of several buckets on both shards, and return the report of each, by bucket.

    Those that are small and alike are compared at once, the others as by verify().
    """
    found = _alike_at_a_glance(sessions, several)
    for facts in several:
        if facts.bucket not in found:
            found[facts.bucket] = verify(sessions, facts, pause=pause)
    return found


def _alike_at_a_glance(sessions: Sessions, several: Sequence[MoveFacts]) -> dict[int, Report]:
    begun, tables = time.monotonic(), several[0].tables
    buckets = [facts.bucket for facts in several]
    with _snapshots(sessions, buckets, several[0].generation) as (source, target):
        if len(glance.small_tables(source, buckets, tables, RANGE)) < len(tables):
            return {}
        totals = glance.totals_alike(source, target, several)
        alike = {*totals} - with_orphans(target, [(facts, None) for facts in several])
    return {
        facts.bucket: Report(
            bucket=facts.bucket,
            generation=facts.generation,
            source=sessions.source.alias,
            target=sessions.target.alias,
            tables=tuple(
                TableReport(name, rows, rows, str(digest), str(digest))
                for name, (rows, digest) in totals[facts.bucket].items()
            ),
            differences=(),
            different=0,
            orphans=(),
            seconds=round(time.monotonic() - begun, 3),
        )
        for facts in several
        if facts.bucket in alike
    }


def large_tables(report: Report) -> frozenset[str]:
    """Return the tables whose rows are too many to be counted while nobody can write them."""
    return frozenset(table.name for table in report.tables if table.source_rows > RANGE)


def verify_numbers(
    sessions: Sessions, facts: MoveFacts, tables: Collection[str], *, pause: Callable[[], None] = nothing
) -> None:
    """
    Compare how many rows some tables have beside those that the log names, while the application writes.

    Raises:
        VerificationFailed: as verify().
        Superseded: another attempt has taken over.
    """
    for name in tables:
        with _snapshots(sessions, [facts.bucket], facts.generation) as (source, target):
            alike = Comparison(source, target, facts, facts.table(name)).compare_numbers(pause)
        if not alike:
            # Row by row, to say what is not alike.
            verify(sessions, facts, pause=pause)


def verify_rest(
    sessions: Sessions,
    rest: Sequence[tuple[MoveFacts, Keys]],
    known: Mapping[int, Collection[str]] = MappingProxyType({}),
) -> None:
    """
    Compare the rows with some keys of each of several buckets, and the numbers of all: the others have been compared.

    Args:
        known: the tables, by bucket, whose numbers have been compared, too.

    Raises:
        VerificationFailed: as verify(), about one of the buckets.
        Superseded: another attempt has taken over.
    """
    with _snapshots(sessions, [facts.bucket for facts, _ in rest], rest[0][0].generation) as (source, target):
        alike = glance.alike(source, target, rest, known) - with_orphans(target, rest)
    for facts, keys in rest:
        if facts.bucket not in alike:
            # Row by row, to say what is not alike.
            verify(sessions, facts, only=keys)


@dataclass(frozen=True, slots=True)
class _Both:
    """The two sides of a move."""

    sessions: Sessions
    facts: MoveFacts
    getting: Collection[BucketState]

    def compare_all(self, pause: Callable[[], None]) -> dict[str, Comparison]:
        """Compare small tables at once, and one by one those that are large, or not alike."""
        with self._snapshots() as (source, target):
            small = glance.small_tables(source, [self.facts.bucket], self.facts.tables, RANGE)
            found = self._alike(source, target, glance.digests(source, target, self.facts, small))
        for table in self.facts.tables:
            if table.name not in found:
                with self._snapshots() as (source, target):
                    found[table.name] = Comparison(source, target, self.facts, table)
                    found[table.name].compare_all(pause)
        return found

    def compare_keys(self, keys: Keys) -> dict[str, Comparison]:
        """Compare the rows with some keys, and the numbers of all."""
        with self._snapshots() as (source, target):
            numbers = glance.counts(source, target, self.facts, self.facts.tables)
            found = self._alike(source, target, numbers)
            for table in self.facts.tables:
                these = keys.get(table.name, ())
                if table.name not in found:
                    found[table.name] = Comparison(source, target, self.facts, table)
                    found[table.name].compare_all()
                elif these:
                    found[table.name].compare_keys(these)
            return found

    def orphans(self, keys: Keys | None) -> tuple[Orphans, ...]:
        """Return which rows refer to none: of all, or of those with some keys."""
        with snapshot(
            self.sessions.target, self.facts.bucket, generation=self.facts.generation, states=self.getting
        ) as target:
            return tuple(orphans_of(target, self.facts, keys))

    def _alike(
        self, source: Cursor, target: Cursor, totals: Mapping[str, list[glance.Totals]]
    ) -> dict[str, Comparison]:
        return {
            table.name: Comparison(source, target, self.facts, table, sent=sent, arrived=sent)
            for table in self.facts.tables
            if table.name in totals
            for sent, arrived in [totals[table.name]]
            if sent == arrived
        }

    def _snapshots(self) -> AbstractContextManager[tuple[Cursor, Cursor]]:
        return _snapshots(self.sessions, self.facts.bucket, self.facts.generation, self.getting)


@contextmanager
def _snapshots(
    sessions: Sessions, buckets: Buckets, generation: int, getting: Collection[BucketState] = GETTING
) -> Iterator[tuple[Cursor, Cursor]]:
    with (
        snapshot(sessions.source, buckets, generation=generation, states=GIVING) as source,
        snapshot(sessions.target, buckets, generation=generation, states=getting) as target,
    ):
        yield source, target

"""
From rows to entries: the rows of a shard in chunks, compared with their entries while the application writes.

What looks wrong is looked at again with the row locked. A write of that row waits for so long, and one that came first
is waited for, so that an entry that is put right is never older than its row.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import islice
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, OperationalError, connections, transaction

from sharding import registry, routing
from sharding.direct_connection import is_locked_out
from sharding.lookups import entries
from sharding.lookups.declaration import Lookup
from sharding.lookups.entries import StoredRow
from sharding.operations import places
from sharding.registry import BUCKET_COLUMN

#: How many rows are read, and at most locked, at a time.
CHUNK = entries.BATCH
#: Seconds for a lock, and how often to try again: the application's blocks go before.
LOCK_TIMEOUT = 2.0
ATTEMPTS = 20

T = TypeVar("T")


class Kind(StrEnum):
    """What is wrong between a row and its entry."""

    MISSING = "missing"
    VALUE = "value"
    BUCKET = "bucket"
    TAKEN = "taken"
    ORPHAN = "orphan"


#: What each kind means, as a part of a sentence.
MEANING = {
    Kind.MISSING: "the row has no entry",
    Kind.VALUE: "the entry has another value than the row",
    Kind.BUCKET: "the entry names another bucket than the row's",
    Kind.TAKEN: "another row has the same unique value",
    Kind.ORPHAN: "the entry has no row",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong. Values are never told: they may be personal."""

    kind: Kind
    #: The row, and the shard where it is or should be.
    pk: Any
    shard: str
    #: Of TAKEN: the row that has the value's entry, and its bucket.
    other: Any = None
    others_bucket: int | None = None
    repaired: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Where a chunk ended, in the order of (bucket, primary key)."""

    bucket: int
    pk: Any


@dataclass(frozen=True, slots=True)
class Step:
    """One chunk of rows."""

    lookup: str
    shard: str
    rows: int
    end: Place
    findings: tuple[Finding, ...] = ()


def compare(
    lookup: Lookup, shard: str, *, owned: Collection[int], after: Place | None = None, repair: bool = False
) -> Iterator[Step]:
    """Yield a step for each chunk of a shard's rows; with ``repair``, their entries are made what they must be."""
    for chunk in _chunks(lookup, shard, after):
        # Copies of buckets that have gone elsewhere are nobody's rows.
        rows = [row for row in chunk if row.bucket in owned]
        stored = entries.stored(lookup, [row.pk for row in rows], DEFAULT_DB_ALIAS)
        suspects = [row.pk for row in rows if not entries.agrees(lookup, stored.get(row.pk), row)]
        found: tuple[Finding, ...] = ()
        if suspects:
            found = locked(lookup, shard, suspects, lambda rows: tuple(_findings(lookup, shard, rows, repair=repair)))
        yield Step(lookup.name, shard, len(rows), Place(chunk[-1].bucket, chunk[-1].pk), found)


def locked(lookup: Lookup, shard: str, pks: Sequence[Any], act: Callable[[list[StoredRow]], T]) -> T:
    """
    Return what ``act`` returns for those of the rows that are still there, locked and as they are now.

    Raises:
        OperationalError: others held the locks for too long, again and again.
    """
    attempts = ATTEMPTS
    while True:
        attempts -= 1
        try:
            with routing.native(shard), transaction.atomic(using=shard):
                _limit_waiting(shard)
                rows = places.stored(registry.get(lookup.sharded), shard).filter(pk__in=pks)
                found = _read(lookup, rows.order_by("pk").select_for_update(no_key=True))
                # Entries are committed first, while nobody else can write their rows.
                with transaction.atomic(using=DEFAULT_DB_ALIAS):
                    _limit_waiting(DEFAULT_DB_ALIAS)
                    return act(found)
        except OperationalError as error:
            if not attempts or not is_locked_out(error):
                raise
        time.sleep(random.uniform(0.05, 0.5))


def _findings(lookup: Lookup, shard: str, rows: Sequence[StoredRow], *, repair: bool) -> Iterator[Finding]:
    stored = entries.stored(lookup, [row.pk for row in rows], DEFAULT_DB_ALIAS)
    wrong = [row for row in rows if not entries.agrees(lookup, stored.get(row.pk), row)]
    if repair:
        entries.put(lookup, wrong, DEFAULT_DB_ALIAS)
    after = entries.stored(lookup, [row.pk for row in wrong], DEFAULT_DB_ALIAS)
    for row in wrong:
        repaired = repair and entries.agrees(lookup, after.get(row.pk), row)
        entry = stored.get(row.pk)
        if entry is None or (repair and not repaired):
            holder = None if repaired else entries.holder(lookup, row, DEFAULT_DB_ALIAS)
            if holder is not None:
                yield Finding(Kind.TAKEN, row.pk, shard, holder.pk, holder.bucket)
            else:
                yield Finding(Kind.MISSING, row.pk, shard, repaired=repaired)
        else:
            yield Finding(Kind.BUCKET if entry.bucket != row.bucket else Kind.VALUE, row.pk, shard, repaired=repaired)


def _chunks(lookup: Lookup, shard: str, after: Place | None) -> Iterator[list[StoredRow]]:
    """Yield the rows of one shard in the order of its index over bucket and primary key, unlocked."""
    while True:
        with routing.native(shard):
            chunk = list(islice(_following(lookup, shard, after), CHUNK))
        if chunk:
            yield chunk
            after = Place(chunk[-1].bucket, chunk[-1].pk)
        if len(chunk) < CHUNK:
            return


def _following(lookup: Lookup, shard: str, after: Place | None) -> Iterator[StoredRow]:
    rows = places.stored(registry.get(lookup.sharded), shard)
    if after is None:
        yield from _read(lookup, rows.order_by(BUCKET_COLUMN, "pk")[:CHUNK])
        return
    # Two questions, each of which the index answers: the rest of a bucket, and the buckets behind it.
    rest = rows.filter(**{BUCKET_COLUMN: after.bucket}, pk__gt=after.pk)
    yield from _read(lookup, rest.order_by("pk")[:CHUNK])
    behind = rows.filter(**{f"{BUCKET_COLUMN}__gt": after.bucket})
    yield from _read(lookup, behind.order_by(BUCKET_COLUMN, "pk")[:CHUNK])


def _read(lookup: Lookup, rows: Any) -> list[StoredRow]:
    names = [BUCKET_COLUMN, *lookup.attnames]
    return [
        StoredRow(pk, values[0], dict(zip(names, values, strict=True)))
        for pk, *values in rows.values_list("pk", *names)
    ]


def _limit_waiting(alias: str) -> None:
    connection = connections[alias]
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT set_config('lock_timeout', %s, true)", [f"{round(LOCK_TIMEOUT * 1000)}ms"])

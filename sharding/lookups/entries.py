"""
Writing the entries of rows that were just written, on the same connection's transaction: the control database's.

Entries of one statement are written in one order, by value, so that two statements over the same values wait for each
other instead of both.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connections

from sharding.lookups import snapshots
from sharding.lookups.declaration import Lookup

#: How many entries one statement names.
BATCH = 500


@dataclass(frozen=True, slots=True)
class StoredRow:
    """What a shard holds of a row: its primary key and some of its columns."""

    pk: Any
    bucket: int
    #: By attname; every looked-up column is among them.
    values: dict[str, Any]


def add(lookups: Iterable[Lookup], rows: Sequence[StoredRow], using: str) -> None:
    """
    Write the entries of new rows.

    Raises:
        IntegrityError: a value of a unique lookup is taken.
    """
    for lookup in lookups:
        _insert(lookup, rows, using)


def add_free(lookups: Iterable[Lookup], rows: Sequence[StoredRow], using: str) -> bool:
    """Write the entries of new rows as far as their values are not taken; return whether none was."""
    for lookup in lookups:
        wanted = [row.pk for row in rows if is_listed(lookup, row)]
        _insert(lookup, rows, using, ignore_conflicts=True)
        if len(stored(lookup, wanted, using)) < len(wanted):
            return False
    return True


def settle(lookups: Iterable[Lookup], rows: Sequence[StoredRow], using: str) -> None:
    """
    Make the entries of changed rows what they must be; rows that had none get one.

    Raises:
        IntegrityError: a value of a unique lookup is taken.
    """
    for lookup in lookups:
        found = stored(lookup, [row.pk for row in rows], using)
        _discard_unseen(lookup, [row.pk for row in rows if row.pk not in found and not is_listed(lookup, row)], using)
        changed = [row for row in rows if not agrees(lookup, found.get(row.pk), row)]
        # All of the old ones first, so that rows can exchange their values.
        discard(lookup, [row.pk for row in changed if row.pk in found], using)
        _insert(lookup, [row for row in changed if row.pk in found], using)
        _insert_unseen(lookup, [row for row in changed if row.pk not in found], using)


def remove(lookups: Iterable[Lookup], rows: Sequence[StoredRow], using: str) -> None:
    """Delete the entries of deleted rows."""
    for lookup in lookups:
        listed = [row for row in rows if is_listed(lookup, row)]
        if discard(lookup, [row.pk for row in listed], using) < len(listed):
            _clash(lookup, listed, using)


def stored(lookup: Lookup, pks: Sequence[Any], using: str) -> dict[Any, Any]:
    """Return the entries of rows: {primary key: entry}."""
    return {entry.pk: entry for part in batches(pks) for entry in lookup.entries.using(using).filter(pk__in=part)}


def holder(lookup: Lookup, row: StoredRow, using: str) -> Any:
    """Return the entry of another row with the same values of a unique lookup, or None."""
    if not lookup.unique or not is_listed(lookup, row):
        return None
    same = lookup.entries.using(using).filter(**{name: row.values[name] for name in lookup.attnames})
    return same.exclude(pk=row.pk).first()


def put(lookup: Lookup, rows: Sequence[StoredRow], using: str) -> None:
    """Make the entries of rows what they must be, as far as their values are not taken."""
    discard(lookup, list(stored(lookup, [row.pk for row in rows], using)), using)
    _insert(lookup, rows, using, ignore_conflicts=True)


def is_listed(lookup: Lookup, row: StoredRow) -> bool:
    """Return whether a row has an entry: a NULL equals nothing, so that nobody can look for it."""
    return all(row.values[attname] is not None for attname in lookup.attnames)


def agrees(lookup: Lookup, entry: Any, row: StoredRow) -> bool:
    """Return whether an entry (or that there is none) is what the row asks for."""
    if entry is None:
        return not is_listed(lookup, row)
    return bool(
        entry.bucket == row.bucket
        and all(getattr(entry, attname) == row.values[attname] for attname in lookup.attnames)
    )


def batches(rows: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for start in range(0, len(rows), BATCH):
        yield rows[start : start + BATCH]


def _insert(lookup: Lookup, rows: Sequence[StoredRow], using: str, *, ignore_conflicts: bool = False) -> None:
    listed = [row for row in rows if is_listed(lookup, row)]
    if not listed:
        return
    # Rows with the same values keep their order: the first one gets them.
    listed.sort(key=lambda row: [str(row.values[attname]) for attname in lookup.attnames])
    made = [
        lookup.model(pk=row.pk, bucket=row.bucket, **{name: row.values[name] for name in lookup.attnames})
        for row in listed
    ]
    lookup.entries.using(using).bulk_create(made, batch_size=BATCH, ignore_conflicts=ignore_conflicts)


def _insert_unseen(lookup: Lookup, rows: Sequence[StoredRow], using: str) -> None:
    """Write entries of rows that seem to have none: in a snapshot older than the shard's this fails to serialize."""
    _insert(lookup, rows, using, ignore_conflicts=True)
    there = stored(lookup, [row.pk for row in rows], using)
    _insert(lookup, [row for row in rows if row.pk not in there], using)


def _clash(lookup: Lookup, rows: Sequence[StoredRow], using: str) -> None:
    """
    Delete entries with given values that this block may not see.

    A snapshot older than the shard's does not show an entry; who would write it again fails, and is repeated.
    """
    _insert(lookup, rows, using, ignore_conflicts=True)
    discard(lookup, [row.pk for row in rows], using)


def _discard_unseen(lookup: Lookup, pks: Sequence[Any], using: str) -> None:
    """Delete entries of rows that have no looked-up values any more, where a snapshot may hide some."""
    if not pks or not snapshots.is_old(connections[using]):
        return
    for part in batches(pks):
        found = snapshots.committed(lookup.entries.using(using).filter(pk__in=part))
        _clash(lookup, [_row(lookup, entry) for entry in found], using)


def _row(lookup: Lookup, entry: Any) -> StoredRow:
    return StoredRow(entry.pk, entry.bucket, {attname: getattr(entry, attname) for attname in lookup.attnames})


def discard(lookup: Lookup, pks: Sequence[Any], using: str) -> int:
    """Delete the entries with these primary keys; return how many there were."""
    return sum(
        lookup.entries.using(using).filter(pk__in=part)._raw_delete(using) or 0
        for part in batches(sorted(pks, key=str))
    )

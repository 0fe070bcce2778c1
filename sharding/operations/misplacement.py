"""
Which stored rows would not be on their owner under a map: by their keys, since a table that was adopted has no buckets.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Count

from sharding import routing
from sharding.errors import MapConflict
from sharding.operations import places
from sharding.registry import Entry


@dataclass(frozen=True, slots=True)
class Misplaced:
    """Rows of one model on one database that belong elsewhere, with one key of theirs as an example."""

    model: str
    alias: str
    rows: int
    field: str
    key: Any
    #: The owner of the example's bucket; None if its key has no bucket.
    owner: str | None

    def __str__(self) -> str:
        destination = f"goes to {self.owner!r}" if self.owner else "has no bucket"
        return (
            f"{self.rows} {'row' if self.rows == 1 else 'rows'} of {self.model} on {self.alias!r} "
            f"(for example {self.field}={self.key!r}, which {destination})"
        )


def misplaced(owners: Sequence[str], aliases: Iterable[str]) -> Iterator[Misplaced]:
    """Yield what lies on a database that would not own it; the tables of every sharded model are read."""
    for alias in aliases:
        for entry in places.present(alias, places.entries()):
            found = _of_table(entry, alias, owners)
            if found is not None:
                yield found


def refuse(found: Sequence[Misplaced], holders: Sequence[str]) -> None:
    """
    Refuse a map under which rows could not be found; ``holders`` are the databases that hold any.

    Raises:
        MapConflict: there are such rows.
    """
    if not found:
        return
    remedy = "Adopt rows that live at key % n with `shards init --adopt-modulo n`, or move them first."
    if len(holders) == 1:
        remedy = (
            f"Keep them where they are with `shards init --all-on {holders[0]}`, and move buckets with "
            f"`manage.py rebalance`."
        )
    raise MapConflict(
        f"Under this map, rows would not be on the shard that owns them: {'; '.join(map(str, found))}. {remedy}"
    )


def holders(aliases: Iterable[str]) -> list[str]:
    """Return the databases on which a sharded table holds a row."""
    found = []
    for alias in aliases:
        with routing.native(alias):
            if any(places.stored(entry, alias).exists() for entry in places.present(alias, places.entries())):
                found.append(alias)
    return found


def _of_table(entry: Entry, alias: str, owners: Sequence[str]) -> Misplaced | None:
    with routing.native(alias):
        # One row a key; a tenant with a million orders is one of them.
        keys = places.stored(entry, alias).values_list(entry.key_attname).annotate(rows=Count("*"))
        rows = 0
        example: tuple[Any, str | None] = (None, None)
        for key, count in keys.iterator(chunk_size=10_000):
            bucket = places.bucket_of_key(entry, key)
            owner = None if bucket is None else owners[bucket]
            if owner != alias:
                example = example if rows else (key, owner)
                rows += count
    if not rows:
        return None
    return Misplaced(entry.label, alias, rows, entry.key_attname, *example)

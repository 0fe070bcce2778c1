"""
The lookups of one UPDATE over several shards: settled when all of them have been sent, so that rows exchange values.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from django.db.models import UniqueConstraint

from sharding.lookups import entries
from sharding.lookups.declaration import Lookup
from sharding.lookups.entries import StoredRow


class Settlement:
    """What the statements of one UPDATE have written, a shard each."""

    def __init__(self, using: str) -> None:
        self._using = using
        self._rows: dict[Lookup, list[StoredRow]] = {}

    def add(self, lookups: Iterable[Lookup], rows: Sequence[StoredRow]) -> None:
        """
        Keep what one shard has written.

        Values that its own table keeps unique are settled at once: one database, too, refuses to exchange them.
        """
        for lookup in lookups:
            if lookup.unique and _is_refused_by_table(lookup):
                entries.settle([lookup], rows, self._using)
            else:
                self._rows.setdefault(lookup, []).extend(rows)

    def settle(self) -> None:
        """
        Make the entries of all these rows what they must be.

        Raises:
            IntegrityError: a value of a unique lookup is taken.
        """
        for lookup, rows in self._rows.items():
            entries.settle([lookup], rows, self._using)


def _is_refused_by_table(lookup: Lookup) -> bool:
    """Return whether rows of one table never have the same looked-up values, not even within a statement."""
    names = set(lookup.attnames)
    return any(names.issuperset(each) for each in _unique(lookup.sharded._meta))


def _unique(options: Any) -> Iterator[list[str]]:
    yield from ([field.attname] for field in options.local_concrete_fields if field.unique)
    grouped = [*options.unique_together]
    for each in options.constraints:
        if isinstance(each, UniqueConstraint) and each.fields and each.condition is None and not each.deferrable:
            grouped.append(each.fields)
    yield from ([options.get_field(name).attname for name in names] for names in grouped)

"""
Merging the sorted rows of several shards in the order that one database would give them.

Pure: rows are tuples as the database driver gives them, before any conversion, and sort keys are positions in them.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from itertools import chain, islice
from typing import Any
from uuid import UUID

Row = Sequence[Any]

#: Where a value stands before values are compared: SQLite sorts by storage class, and NaN is greater than any number.
NUMBER, NAN, TEXT, BYTES = 1, 2, 3, 4
WITH_NAN = frozenset({float, Decimal})
#: Types of which values need no closer look.
PLAIN = frozenset({int, date, datetime})
BEFORE_ALL, AFTER_ALL = (-9, 0), (9, 0)


@dataclass(frozen=True, slots=True)
class SortKey:
    """One column that rows are sorted by."""

    position: int
    descending: bool = False
    nulls_first: bool = False
    #: Turns a value that is not NULL into the one to compare, where the driver's would not do.
    read: Callable[[Any], Any] | None = None


def merged(
    streams: Sequence[Iterable[Row]],
    keys: Sequence[SortKey] = (),
    *,
    distinct: bool = False,
    identities: Mapping[int, Callable[[Any], Any]] | None = None,
    low: int = 0,
    high: int | None = None,
) -> Iterator[Row]:
    """
    Return the rows ``low`` to ``high`` of all streams together, of which each is sorted by ``keys``.

    Lazy: no stream is read further than needed. Rows with equal keys come in the order of the streams.
    With ``distinct``, a row that equals an earlier one is left out before rows are counted. Of a position that is in
    ``identities``, equal values are those of which that function gives the same.
    """
    if keys and len(streams) > 1:
        # Python's own comparisons do then, which are several times as fast.
        reverse = all(key.descending for key in keys)
        compare = sorting_key([_ascending(key) for key in keys] if reverse else keys)
        rows: Iterator[Row] = heapq.merge(*streams, key=compare, reverse=reverse)
    else:
        rows = chain.from_iterable(streams)
    return islice(_unique(rows, identities or {}) if distinct else rows, low, high)


def sorting_key(keys: Sequence[SortKey]) -> Callable[[Row], Any]:
    """Return the function of a row by which Python sorts as the database does."""
    if len(keys) == 1:
        return _column_key(keys[0])
    functions = [_column_key(key) for key in keys]
    if len(keys) == 2:
        # As nearly always: what is ordered by, and the primary key.
        first, second = functions
        return lambda row: (first(row), second(row))
    return lambda row: [function(row) for function in functions]


def _ascending(key: SortKey) -> SortKey:
    """Return the key by which rows come in the opposite order."""
    return replace(key, descending=False, nulls_first=not key.nulls_first)


def _column_key(key: SortKey) -> Callable[[Row], Any]:
    position, read = key.position, key.read
    null = BEFORE_ALL if key.nulls_first else AFTER_ALL
    if read is not None:
        compare = _column_key(replace(key, position=0, read=None))
        return lambda row: compare((None if row[position] is None else read(row[position]),))
    if key.descending:

        def descending(row: Row) -> Any:
            value = row[position]
            return null if value is None else (-_rank(value), _reversed(value))

        return descending

    def ascending(row: Row) -> Any:
        value = row[position]
        kind = type(value)
        if kind in PLAIN:
            return NUMBER, value
        if kind is UUID:
            # As Python compares them itself, but slowly.
            return NUMBER, value.int
        return null if value is None else (_rank(value), _comparable(value))

    return ascending


def _rank(value: Any) -> int:
    kind = type(value)
    if kind is str:
        return TEXT
    if kind is bytes:
        return BYTES
    return NAN if kind in WITH_NAN and value != value else NUMBER


def _comparable(value: Any) -> Any:
    # A NaN is already told apart by its rank, and would make comparisons false, or raise as a Decimal.
    return 0 if type(value) in WITH_NAN and value != value else value


def _reversed(value: Any) -> Any:
    kind = type(value)
    if kind is int or kind is float or kind is bool:
        return -value if value == value else 0
    if kind is Decimal:
        # Unary minus would round to the context's precision.
        return value.copy_negate() if value == value else 0
    return _Reversed(value)


class _Reversed:
    """Sorts the other way round."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __lt__(self, other: _Reversed) -> bool:
        return bool(other.value < self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Reversed) and bool(self.value == other.value)

    __hash__ = None  # type: ignore[assignment]


def _unique(rows: Iterable[Row], identities: Mapping[int, Callable[[Any], Any]]) -> Iterator[Row]:
    seen: set[Any] = set()
    for row in rows:
        values = list(row)
        for position, same in identities.items():
            values[position] = None if row[position] is None else same(row[position])
        identity = tuple([identity_of(value) for value in values])
        if identity not in seen:
            seen.add(identity)
            yield row


def identity_of(value: Any) -> Any:
    if value != value:
        # NaN equals itself in a database, but not in Python.
        return "NaN"
    # A clock that goes back shows two moments alike.
    return (value, 1) if getattr(value, "fold", 0) else value

"""
Merging sorted rows that arrive in chunks: sorted together a round at a time, which costs a fraction of a heap's work.

Pure, as the merge of whole lists is.
"""

from __future__ import annotations

import operator
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from datetime import date, datetime, time
from decimal import Decimal
from itertools import chain, groupby
from typing import Any
from uuid import UUID

from aggregator.merge import Row, SortKey, sorting_key

#: Types of which Python compares two values as every database does, unless one of them is NaN.
PLAIN = frozenset({int, float, bool, Decimal, str, bytes, date, datetime, time, UUID})

#: What list.sort() is given: a function of a row, and whether the greatest comes first.
Pass = tuple[Callable[[Row], Any], bool]


def in_rounds(
    streams: Sequence[Iterator[Sequence[Row]]], keys: Callable[[Sequence[Sequence[Row]]], Sequence[SortKey]]
) -> Iterator[Row]:
    """
    Return the rows of all streams together, of which each is sorted, and comes in chunks.

    Lazy, as far as chunks allow. ``keys`` is asked again whenever a chunk was added, and returns sort keys for the
    rows that are at hand: in lists, one for each stream. Rows with equal keys come in the order of the streams.
    """
    return chain.from_iterable(_rounds(streams, keys))


def _rounds(
    streams: Sequence[Iterator[Sequence[Row]]], keys: Callable[[Sequence[Sequence[Row]]], Sequence[SortKey]]
) -> Iterator[list[Row]]:
    held: list[Sequence[Row]] = [next(stream, []) for stream in streams]
    while any(held):
        found = keys(held)
        counts = _ready(held, sorting_key(found))
        batch = list(chain.from_iterable(rows[:count] for rows, count in zip(held, counts, strict=True)))
        if sum(1 for count in counts if count) > 1:
            for function, reverse in _passes(found, batch):
                batch.sort(key=function, reverse=reverse)
        held = [rows[count:] for rows, count in zip(held, counts, strict=True)]
        yield batch
        held = [rows or next(stream, []) for rows, stream in zip(held, streams, strict=True)]


def _ready(held: Sequence[Sequence[Row]], compare: Callable[[Row], Any]) -> list[int]:
    """Return how many rows at hand of each stream come before all that are not: up to the first of the last rows."""
    bound, first = min((compare(rows[-1]), turn) for turn, rows in enumerate(held) if rows)

    def count(turn: int, rows: Sequence[Row]) -> int:
        if turn == first:
            return len(rows)
        # More rows that equal the bound may follow in its stream, and those of later streams come after them.
        return (bisect_right if turn < first else bisect_left)(rows, bound, key=compare)

    return [count(turn, rows) for turn, rows in enumerate(held)]


def _passes(keys: Sequence[SortKey], rows: Sequence[Row]) -> list[Pass]:
    """Return stable sorts which, one after the other, sort rows by the keys; the last key's comes first."""

    def kind(key: SortKey) -> tuple[bool, bool]:
        return _is_plain(key, rows), key.descending

    found: list[Pass] = []
    for (is_plain, descending), each in groupby(keys, kind):
        same = list(each)
        if is_plain:
            found.append((operator.itemgetter(*(key.position for key in same)), descending))
        else:
            found.append((sorting_key(same), False))
    return found[::-1]


def _is_plain(key: SortKey, rows: Sequence[Row]) -> bool:
    """Return whether the rows' values of a key can be compared as they are."""
    if key.read is not None:
        return False
    values = [row[key.position] for row in rows]
    types = set(map(type, values))
    return len(types) == 1 and types <= PLAIN and not any(map(operator.ne, values, values))

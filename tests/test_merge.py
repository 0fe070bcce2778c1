"""The merge sorts as a database does; its model here is sorted() over plain keys."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aggregator.merge import SortKey, merged, sorting_key
from aggregator.rounds import in_rounds

VALUES = {
    "int": st.integers(-3, 3),
    "float": st.sampled_from([0.0, -0.0, 1.5, -2.0, math.inf, -math.inf, math.nan]),
    "decimal": st.sampled_from([Decimal(text) for text in ("0", "-0", "1.50", "1.5", "-7", "NaN", "1E+30")]),
    "str": st.sampled_from(["", "a", "B", "é", "_", "ab", "\U0001f600"]),
    "bytes": st.sampled_from([b"", b"\x00", b"\xff", b"a"]),
    "bool": st.booleans(),
    "date": st.dates(),
}
KINDS = sorted(VALUES)


def compare(a: Any, b: Any, key: SortKey) -> int:
    """Compare two values as SQL does, written the slow way: NULLs by the key's rule, NaN above all numbers."""
    if a is None or b is None:
        return 0 if a is b else (-1 if (a is None) == key.nulls_first else 1)
    nan_a, nan_b = a != a, b != b
    order = nan_a - nan_b if nan_a or nan_b else (a > b) - (a < b)
    return -order if key.descending else order


def model_key(keys: list[SortKey]) -> Any:
    def ordered(a: Any, b: Any) -> int:
        return next((found for key in keys if (found := compare(a[key.position], b[key.position], key))), 0)

    return functools.cmp_to_key(ordered)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[list[tuple[Any, ...]]], list[SortKey]]:
    """Sorted streams of rows, and the keys they are sorted by; the last column tells equal rows apart."""
    kinds = draw(st.lists(st.sampled_from(KINDS), min_size=1, max_size=3))
    keys = [SortKey(place, draw(st.booleans()), draw(st.booleans())) for place in range(len(kinds))]
    row = st.tuples(*(st.none() | VALUES[kind] for kind in kinds))
    streams = draw(st.lists(st.lists(row, max_size=6), min_size=1, max_size=4))
    numbered = [
        [(*values, f"{stream}.{place}") for place, values in enumerate(rows)] for stream, rows in enumerate(streams)
    ]
    return [sorted(rows, key=model_key(keys)) for rows in numbered], keys


@given(tables())
def test_merge_is_the_sort_of_everything(table: Any) -> None:
    streams, keys = table
    everything = [row for rows in streams for row in rows]
    expected = sorted(everything, key=model_key(keys))
    assert [row[-1] for row in merged(streams, keys)] == [row[-1] for row in expected]


@given(tables(), st.integers(0, 8), st.none() | st.integers(0, 12))
def test_a_slice_of_slices(table: Any, low: int, high: int | None) -> None:
    """Each stream needs to give no more than the rows up to the end of the slice."""
    streams, keys = table
    whole = list(merged(streams, keys))[low:high]
    cut = merged([rows[:high] for rows in streams], keys, low=low, high=high)
    assert [row[-1] for row in cut] == [row[-1] for row in whole]


@given(tables())
def test_distinct_keeps_one_of_equal_rows(table: Any) -> None:
    streams, keys = table
    bare = [[row[:-1] for row in rows] for rows in streams]
    found = list(merged(bare, keys, distinct=True))
    expected = {tuple("NaN" if value != value else value for value in row) for rows in bare for row in rows}
    assert len(found) == len(expected)
    key = sorting_key(keys)
    assert sorted(found, key=key) == found or any(value != value for row in found for value in row)


def ranked(keys: list[SortKey], rows: list[Any]) -> list[SortKey]:
    """Return the keys with the ranks of the values of these rows alone."""

    def reader(key: SortKey) -> Any:
        plain = [SortKey(key.position)]
        values = sorted((row for row in rows if row[key.position] is not None), key=model_key(plain))
        ranks: dict[str, int] = {}
        for before, row in zip([None, *values], values, strict=False):
            same = before is not None and compare(before[key.position], row[key.position], key) == 0
            ranks[repr(row[key.position])] = ranks[repr(before[key.position])] if same else len(ranks)
        return lambda value: ranks[repr(value)]

    return [replace(key, read=reader(key)) for key in keys]


@given(tables(), st.integers(1, 4))
def test_rounds_of_chunks_are_merged_as_lists_are(table: Any, size: int) -> None:
    """What is compared by means something only beside the rows that are at hand."""
    streams, keys = table
    chunks = [iter([rows[at : at + size] for at in range(0, len(rows), size)]) for rows in streams]
    found = in_rounds(chunks, lambda held: ranked(keys, [row for rows in held for row in rows]))
    assert [row[-1] for row in found] == [row[-1] for row in merged(streams, keys)]


def test_rounds_read_no_further_than_needed() -> None:
    read: list[int] = []

    def chunks(start: int) -> Any:
        for number in range(start, start + 1000, 4):
            read.append(number)
            yield [(number,), (number + 2,)]

    rows = merged([in_rounds([chunks(0), chunks(1)], lambda held: [SortKey(0)])], high=4)
    assert [number for (number,) in rows] == [0, 1, 2, 3]
    assert len(read) <= 4


def test_distinct_by_what_a_database_takes_for_equal() -> None:
    streams = [[("a", 1), ("B", 1), (None, 1)], [("A", 1), ("A", 2), (None, 1)]]
    found = merged(streams, distinct=True, identities={0: lambda value: value.lower()})
    assert list(found) == [("a", 1), ("B", 1), (None, 1), ("A", 2)]


def test_streams_are_read_no_further_than_needed() -> None:
    read: list[int] = []

    def stream(start: int) -> Any:
        for number in range(start, start + 1000, 2):
            read.append(number)
            yield (number,)

    assert list(merged([stream(0), stream(1)], [SortKey(0)], high=3)) == [(0,), (1,), (2,)]
    assert len(read) <= 5


def test_without_keys_streams_follow_each_other() -> None:
    assert list(merged([[(2,), (1,)], [(0,)]])) == [(2,), (1,), (0,)]


@pytest.mark.parametrize("descending", [False, True])
def test_storage_classes_of_sqlite(descending: bool) -> None:
    """A column may hold values of several kinds: numbers come before text, and text before bytes."""
    values = [-1, 2.5, 10**30, "", "1", b"", b"\x00"]
    rows = [(value,) for value in (values[::-1] if descending else values)]
    key = sorting_key([SortKey(0, descending, nulls_first=not descending)])
    backwards = rows[::-1]
    assert sorted(backwards, key=key) == rows


PARIS = ZoneInfo("Europe/Paris")
#: Half past two in summer time, ten past two in winter time, and three o'clock.
REPEATED = [
    datetime(2013, 10, 27, 2, 30, tzinfo=PARIS),
    datetime(2013, 10, 27, 2, 10, tzinfo=PARIS, fold=1),
    datetime(2013, 10, 27, 3, tzinfo=PARIS),
]


@pytest.mark.parametrize("descending", [False, True])
def test_an_hour_that_a_clock_repeats(descending: bool) -> None:
    """Python compares moments of one zone by what its clock shows."""
    key = SortKey(1, descending, nulls_first=descending, read=lambda value: value.astimezone(UTC))
    rows = [(0, value) for value in [*REPEATED, None]]
    ordered = rows[::-1] if descending else rows
    assert list(merged([[each] for each in sorted(rows, key=repr)], [key])) == ordered


def test_distinct_moments_that_a_clock_shows_alike() -> None:
    first = datetime(2013, 10, 27, 2, 30)
    second = first.replace(fold=1)
    found = list(merged([[(first,), (second,)], [(second,)], [(first,)]], distinct=True))
    assert [value.fold for (value,) in found] == [0, 1]


def test_decimals_are_not_rounded() -> None:
    """Unary minus would cut these to 28 digits, and make them equal."""
    rows = [(Decimal("1.00000000000000000000000000000000002"),), (Decimal("1.00000000000000000000000000000000001"),)]
    backwards = rows[::-1]
    assert sorted(backwards, key=sorting_key([SortKey(0, True)])) == rows

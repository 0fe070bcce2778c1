"""
What a bucket weighs when shards are balanced: whole numbers, so that no rounding decides between equal shards.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from math import isfinite, lcm
from typing import Final

#: By what shards are balanced.
BY: Final = ("bytes", "rows", "buckets")
#: All buckets together count as much more as one such part of what is stored, each the same: a future key may land in
#: any of them, so that an empty bucket is not nothing.
FUTURE: Final = 20


def is_count(value: object) -> bool:
    """Return whether a value is a whole number of 0 or more."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_number(value: object) -> bool:
    """Return whether a value is a finite number of 0 or more."""
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and value >= 0


@dataclass(frozen=True, slots=True)
class Size:
    """
    What is stored in one bucket.

    Raises:
        ValueError: one of the numbers is no whole number, or negative.
    """

    rows: int = 0
    bytes: int = 0

    def __post_init__(self) -> None:
        for name, value in (("rows", self.rows), ("bytes", self.bytes)):
            if not is_count(value):
                raise ValueError(f"The {name} of a bucket are a whole number of 0 or more, not {value!r}.")

    def __add__(self, other: Size) -> Size:
        return Size(self.rows + other.rows, self.bytes + other.bytes)


NOTHING: Final = Size()


def loads_of(buckets: int, sizes: Mapping[int, Size], by: str) -> tuple[int, ...]:
    """
    Return the load of bucket 0, 1, 2 and so on, each more than 0.

    It is the bucket's bytes (or rows) and an equal share of a twentieth of all bytes (or rows), both times
    ``20 * buckets`` so that they are whole numbers. By "buckets", and where nothing is stored, each counts 1.

    >>> loads_of(4, {0: Size(rows=9, bytes=900), 2: Size(rows=1, bytes=100)}, "bytes")
    (73000, 1000, 9000, 1000)
    """
    figures = [0] * buckets
    if by != "buckets":
        for bucket, size in sizes.items():
            figures[bucket] = getattr(size, by)
    total = sum(figures)
    if not total:
        return (1,) * buckets
    return tuple(FUTURE * buckets * figure + total for figure in figures)


def exact(number: float) -> Fraction:
    """Return what a number says in writing, for which 0.1 is a tenth."""
    return Fraction(str(number))


def factors_of(weights: Mapping[str, float]) -> dict[str, int]:
    """
    Return for each shard the whole number that its load is multiplied by to compare it with the others' loads.

    >>> factors_of({"a": 1, "b": 0.5, "c": 2})
    {'a': 2, 'b': 4, 'c': 1}
    """
    fractions = {alias: exact(weight) for alias, weight in weights.items()}
    scale = lcm(*(fraction.numerator for fraction in fractions.values()))
    return {alias: scale * each.denominator // each.numerator for alias, each in fractions.items()}

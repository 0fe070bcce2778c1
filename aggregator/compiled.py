"""
Compiled SQL with its parameters, and which of it is the same; and what may be compiled.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Sql = tuple[str, tuple[Any, ...]]


def place_of(sql: Sql, among: Sequence[Sql]) -> int | None:
    """
    Return where the same SQL stands, or None.

    Python finds parameters equal that a database does not: 1, 1.0 and True, and two moments that a clock shows alike.
    """
    places = (place for place, each in enumerate(among) if each == sql and repr(each) == repr(sql))
    return next(places, None)


def compilable(query: Any) -> Any:
    """
    Return a query that may be compiled without a trace in this one: itself, or a copy of a union.

    Compiling a union adds the columns that it is sorted by to those that it selects; a plain clone shares their names.
    """
    if not query.combinator or query.selected is None:
        return query
    copied = query.clone()
    copied.selected = copied.selected.copy()
    return copied

"""
Which lookup a query names: an equality, or IN with plain values, on every column of it, for every row of the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models.expressions import Col
from django.db.models.lookups import Exact, In
from django.db.models.sql import Query

from sharding import registry, routing
from sharding.lookups.declaration import Lookup


@dataclass(frozen=True, slots=True)
class Match:
    """A lookup and what a WHERE clause says of its columns."""

    lookup: Lookup
    #: One condition for each column of the lookup.
    conditions: tuple[Exact | In, ...]
    #: At most one row has these values, whatever is stored.
    single: bool


def match(query: Query) -> Match | None:
    """Return how a query names a lookup: the one that limits it most, or None."""
    inner = getattr(query, "inner_query", None)
    if inner is not None:
        return match(inner)
    if query.combinator:
        return None
    return min(_matches(query), key=lambda each: (not each.single, not each.lookup.unique), default=None)


def _matches(query: Query) -> Iterator[Match]:
    for columns in _named(query).values():
        lookups: tuple[Lookup, ...] = columns.lookups
        for lookup in lookups:
            if set(lookup.attnames) <= columns.conditions.keys():
                yield _match(lookup, columns.conditions)


@dataclass(slots=True)
class _Columns:
    """What is said of the looked-up columns of one table of the query."""

    lookups: tuple[Lookup, ...]
    conditions: dict[str, Exact | In]


def _named(query: Query) -> dict[str, _Columns]:
    found: dict[str, _Columns] = {}
    for node in routing.anded(query.where):
        if not isinstance(node, (Exact, In)) or not isinstance(node.lhs, Col) or node.lhs.alias not in query.alias_map:
            continue
        entry = registry.entry(node.lhs.target.model)
        if entry is None or not entry.lookups or not _is_plain(node):
            continue
        columns = found.setdefault(node.lhs.alias, _Columns(entry.lookups, {}))
        attname = node.lhs.target.attname
        # Of two conditions on one column the equality says more.
        if isinstance(node, Exact) or attname not in columns.conditions:
            columns.conditions[attname] = node
    return found


def _is_plain(node: Exact | In) -> bool:
    values = routing.literals(node.lhs.target, node.rhs, many=isinstance(node, In))
    return values is not None and not (isinstance(node, Exact) and values == [None])


def _match(lookup: Lookup, conditions: dict[str, Exact | In]) -> Match:
    named = tuple(conditions[attname] for attname in lookup.attnames)
    single = lookup.unique and all(isinstance(each, Exact) or len(each.rhs) == 1 for each in named)
    return Match(lookup, named, single)

"""
Where the door asks for help with a statement whose rows may lie in several buckets.

The aggregator installs itself here when its app is ready; without it such statements raise.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from django.db.models.sql import Query

from sharding import cluster_map, hidden_rows, ownership
from sharding.backends.native_compilers import owned
from sharding.bucket_map import BucketMap
from sharding.errors import CrossShardQuery, ShardingError
from sharding.routing import Buckets

logger = logging.getLogger("sharding")

#: Names of Django's compilers whose statements change nothing.
READING = frozenset({"SQLCompiler", "SQLAggregateCompiler"})


@dataclass(frozen=True, slots=True)
class FanOutRequest:
    """
    One statement for several buckets.

    Whether it is allowed must depend on the statement alone: with one alias, too, what cannot be merged is refused,
    so that code goes on working when a bucket moves.
    """

    #: Name of Django's compiler: "SQLCompiler", "SQLAggregateCompiler", "SQLUpdateCompiler" or "SQLDeleteCompiler".
    name: str
    query: Query
    #: The caller's connection wrapper of `default`; ``door.enlist(alias)`` comes before a statement to a shard.
    door: Any
    #: The owners of the buckets, sorted; at least one.
    aliases: tuple[str, ...]
    buckets: Buckets
    elide_empty: bool = True
    #: Nobody asked for it with fan_out(): Django itself does (unique validation, for one).
    probe: bool = False
    #: Why a shard cannot answer by itself, if its part of a fan-out reads rows that may be elsewhere.
    refused: ShardingError | None = None
    #: By which the shards that are asked were chosen. Another thread may learn of a move between two of them.
    map: BucketMap = field(default_factory=cluster_map.current)
    #: False where one shard has all the rows, whatever the map says, so that nothing has to be merged.
    merged: bool = True

    def native(self, alias: str | None = None, query: Query | None = None) -> Any:
        """Return Django's own compiler on one of the shards, the first by default; it enlists itself."""
        limited = self.limited(query or self.query)
        return owned(self.name, limited, alias or self.aliases[0], self.door, self.elide_empty)

    @property
    def is_shared(self) -> bool:
        """Whether a shard that is asked may have rows of buckets which are not its own, and which are asked for."""
        return len(self.aliases) > 1 or (self.buckets is None and len(self.map.aliases) > 1)

    def limited(self, query: Query) -> Query:
        """Return a query such that each shard finds rows of its own only."""
        if not self.is_shared:
            return query
        # A write that is refused can rarely be sent again by itself, and what writing costs is not the condition.
        careful = self.name not in READING or hidden_rows.may_exist(self.door)
        return ownership.limited(query, cluster_map.shown(self.map), careful=careful)


FanOut = Callable[[FanOutRequest], Any]

_installed: FanOut | None = None
_cleaner: Callable[[], None] | None = None
_watchers: list[Callable[[FanOutRequest], object]] = []


def install(function: FanOut | None) -> None:
    """Install what makes compilers for statements over several buckets; None takes it away."""
    global _installed
    _installed = function


def asks_others(query: Query, buckets: frozenset[int]) -> bool:
    """Return whether fan_out(shards=…) of a query names none of the owners of its rows."""
    inner = getattr(query, "inner_query", query)
    only = getattr(getattr(inner, "fan_out", None), "shards", None)
    return only is not None and not set(only).intersection(cluster_map.current().owners_of(buckets))


def restricted(query: Query, aliases: tuple[str, ...]) -> tuple[str, ...]:
    """
    Return those of the owners of a query's rows that its fan_out(shards=…) names; where it names none of them, another
    shard, on which no such row is stored.
    """
    inner = getattr(query, "inner_query", query)
    only = getattr(getattr(inner, "fan_out", None), "shards", None)
    if only is None:
        return aliases
    return tuple(alias for alias in aliases if alias in only) or only[:1]


def on_one_shard(request: FanOutRequest) -> Any:
    """Return a compiler for a request of fan_out() whose rows are all in one bucket: no fan-out, but with a policy."""
    return request.native() if _installed is None else _installed(replace(request, merged=False))


def install_cleaner(function: Callable[[], None]) -> None:
    """Install what ends sessions beside those of the caller, before tables are emptied."""
    global _cleaner
    _cleaner = function


def clean() -> None:
    """End the sessions that this thread's iterators have left open."""
    if _cleaner is not None:
        _cleaner()


@contextmanager
def watched_by(watcher: Callable[[FanOutRequest], object]) -> Iterator[None]:
    """Call ``watcher`` with every request that is made inside, in any thread."""
    _watchers.append(watcher)
    try:
        yield
    finally:
        _watchers.remove(watcher)


def fan_out(request: FanOutRequest) -> Any:
    """
    Return a compiler for the request.

    Raises:
        CrossShardQuery: no aggregator is installed.
    """
    label = request.query.model._meta.label if request.query.model else "raw"
    if request.probe:
        logger.info("Django asks every shard about %s, since its query names no shard key.", label)
    for watcher in tuple(_watchers):
        watcher(request)
    if _installed is None:
        raise CrossShardQuery(
            f"This {label} query names rows of several shard keys, which may live on several shards, and "
            f"nothing is installed to merge their answers. Add 'aggregator' to INSTALLED_APPS.",
            model=label,
            aliases=request.aliases,
        )
    return _installed(request)

"""
Where sharded rows can be: every table of a sharded model on the control database and on every shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import cluster_map, conf, registry, routing
from sharding.bucket_map import BucketMap
from sharding.errors import ShardingError
from sharding.registry import Entry


def databases(bucket_map: BucketMap | None = None) -> tuple[str, ...]:
    """Return `default`, the declared shards, and the owners in the map, each once."""
    owners = () if bucket_map is None else bucket_map.aliases
    return tuple(dict.fromkeys((DEFAULT_DB_ALIAS, *conf.current().shards, *owners)))


def entries(labels: Sequence[str] = ()) -> list[Entry]:
    """Return the sharded models that have a table: all, or those with these labels."""
    wanted = {label.lower() for label in labels}
    return [
        entry
        for entry in registry.entries()
        if not entry.model._meta.swapped and (not wanted or entry.label.lower() in wanted)
    ]


def present(alias: str, among: Sequence[Entry]) -> list[Entry]:
    """Return those of the models whose table exists on a database."""
    names = set(cluster_map.connection_of(alias).introspection.table_names())
    return [entry for entry in among if entry.table in names]


def lacking(alias: str, among: Sequence[Entry]) -> list[Entry]:
    """Return those of the models that have neither a table nor a view on a database."""
    names = set(cluster_map.connection_of(alias).introspection.table_names(include_views=True))
    return [entry for entry in among if entry.table not in names]


def stored(entry: Entry, alias: str) -> Any:
    """
    Return a queryset over all rows of a model on one database, without any order.

    Evaluate it inside ``routing.native(alias)``.
    """
    return entry.model._base_manager.using(alias).order_by()


def in_batches(entry: Entry, alias: str, columns: Sequence[str], *, size: int) -> Iterator[list[Any]]:
    """
    Yield the rows of a model on one database as tuples of the id and the columns, ``size`` at a time, by ascending id.

    Each batch is a statement of its own, so that no transaction stays open and a row that changes is met once.
    """
    last: Any = None
    while True:
        with routing.native(alias):
            rows = stored(entry, alias)
            if last is not None:
                rows = rows.filter(pk__gt=last)
            batch = list(rows.order_by("pk").values_list("pk", *columns)[:size])
        if batch:
            yield batch
            last = batch[-1][0]
        if len(batch) < size:
            return


def bucket_of_key(entry: Entry, key: Any) -> int | None:
    """Return the bucket of a stored key, or None where the key has none."""
    try:
        return entry.bucket_of_key(key)
    except ShardingError:
        return None


def is_postgresql(alias: str) -> bool:
    return bool(connections[alias].vendor == "postgresql")

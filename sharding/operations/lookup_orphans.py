"""
From entries to rows: entries whose row is gone, which would keep a unique value taken for ever.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, transaction

from sharding import cluster_map, registry, routing
from sharding.lookups import entries, in_flight
from sharding.lookups.declaration import Lookup
from sharding.operations import places
from sharding.operations.lookup_rows import CHUNK, Finding, Kind, Place, Step

#: Seconds to wait for transactions that are decided; behind what a crash has left, nothing can be said.
PATIENCE = 5.0


def find(lookup: Lookup, *, known: Collection[Any] = (), repair: bool = False) -> Iterator[Step]:
    """
    Yield a step for each chunk of entries; with ``repair``, those that have no row are deleted.

    The rows of the primary keys in ``known`` are there, wherever their entries say.
    """
    after: Any = None
    while True:
        chunk = lookup.entries.using(DEFAULT_DB_ALIAS).order_by("pk")
        found = list(chunk.filter(pk__gt=after)[:CHUNK] if after is not None else chunk[:CHUNK])
        for shard, part in _by_shard(found).items():
            unknown = [entry for entry in part if entry.pk not in known]
            findings = tuple(_orphans(lookup, shard, unknown, repair=repair))
            yield Step(lookup.name, shard, len(part), Place(part[-1].bucket, part[-1].pk), findings)
        if len(found) < CHUNK:
            return
        after = found[-1].pk


def _by_shard(found: Sequence[Any]) -> dict[str, list[Any]]:
    owner = cluster_map.current().owner
    shards: dict[str, list[Any]] = {}
    for entry in found:
        shards.setdefault(owner(entry.bucket), []).append(entry)
    return shards


def _orphans(lookup: Lookup, shard: str, found: Sequence[Any], *, repair: bool) -> Iterator[Finding]:
    suspects = _without_rows(lookup, shard, [entry.pk for entry in found])
    if not suspects:
        return
    # A row whose entry is committed may itself be about to be.
    connection = connections[shard]
    if in_flight.wait_for(connection, in_flight.commits(connection), seconds=PATIENCE):
        return
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        still = lookup.entries.using(DEFAULT_DB_ALIAS).filter(pk__in=suspects).order_by("pk").select_for_update()
        # With its entry locked, no transaction can be writing such a row.
        orphans = _without_rows(lookup, shard, [entry.pk for entry in still])
        if repair:
            entries.discard(lookup, orphans, DEFAULT_DB_ALIAS)
    for pk in orphans:
        yield Finding(Kind.ORPHAN, pk, shard, repaired=repair)


def _without_rows(lookup: Lookup, shard: str, pks: Sequence[Any]) -> list[Any]:
    """Return those of the primary keys that no row of the shard has."""
    if not pks:
        return []
    # A session of its own: the block over the entries must not become one over two databases.
    with routing.native(shard):
        rows = places.stored(registry.get(lookup.sharded), shard)
        there = set(rows.filter(pk__in=pks).values_list("pk", flat=True))
    return [pk for pk in pks if pk not in there]

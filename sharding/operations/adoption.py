"""
Adopt rows that an application has placed by ``key % n`` itself: the map that finds them, after a look at real rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sharding import conf, routing
from sharding.errors import MapConflict
from sharding.operations import places
from sharding.registry import Entry

#: Rows looked at per table: so many with the lowest ids, and so many with the highest.
SAMPLE = 500


def modulo_owners(n: int) -> tuple[str, ...]:
    """
    Return the owner of every bucket, so that a key is owned by the shard at position ``key % n`` of SHARDS.

    Raises:
        MapConflict: the settings do not fit, or a row that was looked at is on another shard.
    """
    settings = conf.current()
    if settings.hash != "identity":
        raise MapConflict(
            f"--adopt-modulo needs SHARDING['HASH'] = 'identity', and it is {settings.hash!r}: the rows live where "
            f"their key says, not where its hash says."
        )
    if n != len(settings.shards):
        raise MapConflict(
            f"--adopt-modulo {n} needs {n} shards in SHARDING['SHARDS'], in the order of their remainders, and it "
            f"names {len(settings.shards)}: {', '.join(settings.shards) or 'none'}."
        )
    if settings.buckets % n:
        raise MapConflict(
            f"--adopt-modulo {n} needs a number of buckets that {n} divides, and SHARDING['BUCKETS'] is "
            f"{settings.buckets}. Set it to {settings.buckets - settings.buckets % n}."
        )
    for position, alias in enumerate(settings.shards):
        for entry in places.present(alias, places.entries()):
            _look_at(entry, alias, position, n)
    return tuple(settings.shards[bucket % n] for bucket in range(settings.buckets))


def _look_at(entry: Entry, alias: str, position: int, n: int) -> None:
    for pk, key in _sample(entry, alias):
        bucket = places.bucket_of_key(entry, key)
        if bucket is None or bucket % n != position:
            lies = "has no bucket" if bucket is None else f"belongs to {conf.current().shards[bucket % n]!r}"
            raise MapConflict(
                f"The {entry.label} with the id {pk!r} is on {alias!r}, number {position} of SHARDING['SHARDS'], but "
                f"its {entry.key_attname}={key!r} {lies} by key % {n}. List the shards in the order of their "
                f"remainders, or correct the row."
            )


def _sample(entry: Entry, alias: str) -> Iterator[Any]:
    with routing.native(alias):
        rows = places.stored(entry, alias).values_list("pk", entry.key_attname)
        found = [*rows.order_by("pk")[:SAMPLE], *rows.order_by("-pk")[:SAMPLE]]
    yield from found

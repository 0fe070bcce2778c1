"""
The keys that share a bucket with one that is to have a shard of its own: they come along.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from django.db import connections

from sharding.operations import places
from sharding.rebalance.load import Size
from sharding.rebalance.sizes import asked, key_column, quoted, width_of
from sharding.registry import Entry

#: Neighbours that are named.
NAMED = 5


@dataclass(frozen=True, slots=True)
class Neighbour:
    """Another key of the bucket, as it is written in sentences, and what is stored under it."""

    name: str
    size: Size


def neighbours(alias: str, entry: Entry, key: Any, size: Size, *, named: int = NAMED) -> list[Neighbour]:
    """Return the largest of the other keys in a key's bucket, whose rows on a shard have ``size`` together."""
    bucket = entry.bucket_of_key(key)
    parts: list[str] = []
    params: list[Any] = []
    names: dict[str, str] = {}
    for each in places.present(alias, places.entries()):
        names.setdefault(each.family, each.key_attname)
        own, own_params = _is_own(alias, each, entry, key)
        parts.append(
            f"SELECT %s::text AS family, {quoted(alias, key_column(each))}::text AS key, {own} AS own, "
            f"count(*) AS rows, sum({width_of(alias, each)}) AS width "
            f"FROM {quoted(alias, each.table)} WHERE bucket = %s GROUP BY 1, 2, 3"
        )
        params += [each.family, *own_params, bucket]
    if not parts:
        return []
    # The window sees all groups, whatever WHERE leaves of them outside.
    found = asked(
        alias,
        f"SELECT * FROM (SELECT family, key, bool_or(own) AS own, sum(rows)::bigint, sum(width)::bigint AS width, "
        f"(sum(sum(width)) OVER ())::bigint FROM ({' UNION ALL '.join(parts)}) AS tables GROUP BY family, key) AS keys "
        f"WHERE NOT own ORDER BY width DESC, family, key LIMIT %s",
        [*params, named],
    )
    return list(_named(found, names, size))


def _named(found: list[Any], names: dict[str, str], size: Size) -> Iterator[Neighbour]:
    for family, key, _, rows, width, everything in found:
        yield Neighbour(f"{names[family]}={key}", Size(rows, size.bytes * width // everything))


def _is_own(alias: str, each: Entry, entry: Entry, key: Any) -> tuple[str, list[Any]]:
    if each.family != entry.family:
        return "false", []
    prepared = each.key_field.get_db_prep_value(each.prepare_key(key), connections[alias], prepared=True)
    return f"{quoted(alias, key_column(each))} = %s", [prepared]

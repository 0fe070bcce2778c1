"""
What is stored in each bucket, asked of the shards themselves through their ordinary connections. PostgreSQL only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.db import NotSupportedError, connections

from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.bucket_map import BucketMap
from sharding.operations import places
from sharding.rebalance.load import NOTHING, Size
from sharding.rebalance.planning import KeyInBucket
from sharding.registry import Entry

#: With its indexes and what is stored beside it; a partitioned table has nothing itself.
TABLE_SIZE = """
    SELECT coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(named)),
                    pg_total_relation_size(named), 0)::bigint
    FROM to_regclass(%s) AS named
"""
#: What PostgreSQL keeps with each row.
ROW_HEADER = 28


def cluster_sizes(bucket_map: BucketMap, *, sample: float | None = None) -> dict[int, Size]:
    """
    Return what each owner in a map has in its buckets; a bucket that is empty has no entry.

    See bucket_sizes(). What a shard has of buckets that are not its own is left out.
    """
    found: dict[int, Size] = {}
    for alias in bucket_map.aliases:
        there = bucket_sizes(alias, sample=sample)
        found.update((bucket, there[bucket]) for bucket in bucket_map.buckets_of(alias) if bucket in there)
    return dict(sorted(found.items()))


def bucket_sizes(alias: str, *, sample: float | None = None) -> dict[int, Size]:
    """
    Return what one database has in each bucket, as an ascending mapping; a bucket that is empty has no entry.

    Rows are counted, by the index that each sharded table has on (bucket, primary key). The bytes of a table, indexes
    included, are divided among them: equally, or with ``sample`` by the width of the rows in a bucket, of which that
    part is looked at (1 for all, 0.01 for one page in a hundred).

    Raises:
        NotSupportedError: the database is not PostgreSQL.
        ValueError: ``sample`` is not more than 0 and at most 1.
    """
    _check(alias, sample)
    found: dict[int, Size] = {}
    for entry in places.present(alias, places.entries()):
        for bucket, size in _table_sizes(alias, entry, sample).items():
            found[bucket] = found.get(bucket, NOTHING) + size
    return dict(sorted(found.items()))


def key_in_bucket(alias: str, entry: Entry, key: Any, size: Size) -> KeyInBucket:
    """
    Return what one key of a family of models has in its bucket of ``size``, and how many keys are in it.

    Raises:
        NotSupportedError: the database is not PostgreSQL.
        UnhashableKey: ``key`` is no key of the model.
    """
    _check(alias, None)
    bucket = entry.bucket_of_key(key)
    there = places.present(alias, places.entries())
    rows = own = everything = 0
    for each in there:
        counted, width, all_width = _key_in_table(alias, each, bucket, key if each.family == entry.family else None)
        rows, own, everything = rows + counted, own + width, everything + all_width
    share = size.bytes * own // everything if everything else 0
    return KeyInBucket(f"{entry.key_attname}={key!r}", Size(rows, share), _keys(alias, there, bucket))


def _table_sizes(alias: str, entry: Entry, sample: float | None) -> dict[int, Size]:
    table = quoted(alias, entry.table)
    counted: dict[int, int] = dict(asked(alias, f"SELECT bucket, count(*) FROM {table} GROUP BY bucket"))
    ((total,),) = asked(alias, TABLE_SIZE, [table])
    widths = _widths(alias, entry, sample) if sample is not None and counted else {}
    # A bucket of which no row was met has rows like the others'.
    usual = sum(width for width, _ in widths.values()) / (sum(rows for _, rows in widths.values()) or 1) or 1
    weighed = {
        bucket: rows * (widths[bucket][0] / widths[bucket][1] if bucket in widths else usual)
        for bucket, rows in counted.items()
    }
    whole = sum(weighed.values())
    return {bucket: Size(counted[bucket], int(total * weight / whole)) for bucket, weight in weighed.items()}


def _widths(alias: str, entry: Entry, sample: float) -> dict[int, tuple[int, int]]:
    """Return for each bucket that is met the width of some of its rows, and how many these are."""
    part = "" if sample == 1 else f" TABLESAMPLE SYSTEM ({sample * 100:f}) REPEATABLE (0)"
    statement = f"SELECT bucket, sum({width_of(alias, entry)}), count(*) FROM {quoted(alias, entry.table)}{part}"
    return {bucket: (int(width), rows) for bucket, width, rows in asked(alias, f"{statement} GROUP BY bucket")}


def _key_in_table(alias: str, entry: Entry, bucket: int, key: Any) -> tuple[int, int, int]:
    """Return the rows of a key in one table, their width, and that of all rows of the bucket there."""
    width, params = width_of(alias, entry), [bucket]
    own = "false"
    if key is not None:
        own = f"{quoted(alias, key_column(entry))} = %s"
        prepared = entry.key_field.get_db_prep_value(entry.prepare_key(key), connections[alias], prepared=True)
        params = [prepared, prepared, bucket]
    statement = f"""
        SELECT count(*) FILTER (WHERE {own}), coalesce(sum({width}) FILTER (WHERE {own}), 0), coalesce(sum({width}), 0)
        FROM {quoted(alias, entry.table)} WHERE bucket = %s
    """
    ((rows, own_width, all_width),) = asked(alias, statement, params)
    return rows, int(own_width), int(all_width)


def _keys(alias: str, there: Iterable[Entry], bucket: int) -> int:
    """Return how many keys a bucket has; one that several models of a family have counts once."""
    parts, params = [], []
    for entry in there:
        parts.append(
            f"SELECT %s::text, {quoted(alias, key_column(entry))}::text FROM {quoted(alias, entry.table)} "
            f"WHERE bucket = %s"
        )
        params += [entry.family, bucket]
    if not parts:
        return 0
    ((count,),) = asked(alias, f"SELECT count(*) FROM ({' UNION '.join(parts)}) AS keys", params)
    return int(count)


def width_of(alias: str, entry: Entry) -> str:
    """Return the SQL of a row's width as it is stored: compressed, and with what lies beside the table."""
    fields: list[Any] = list(entry.model._meta.local_concrete_fields)
    columns = (quoted(alias, field.column) for field in fields)
    return " + ".join([str(ROW_HEADER), *(f"coalesce(pg_column_size({column}), 0)" for column in columns)])


def key_column(entry: Entry) -> str:
    field: Any = entry.key_field
    return str(field.column)


def quoted(alias: str, name: str) -> str:
    return str(connections[alias].ops.quote_name(name))


def asked(alias: str, statement: str, params: list[Any] | None = None) -> list[Any]:
    with connections[alias].cursor() as cursor:
        cursor.execute(f"{CONTROL_ONLY} {statement}", params)
        rows: list[Any] = cursor.fetchall()
        return rows


def _check(alias: str, sample: float | None) -> None:
    if not places.is_postgresql(alias):
        raise NotSupportedError(f"{alias!r} is not PostgreSQL, between whose servers buckets move.")
    if sample is not None and not 0 < sample <= 1:
        raise ValueError(f"A sample is a part of all rows: more than 0 and at most 1, not {sample!r}.")

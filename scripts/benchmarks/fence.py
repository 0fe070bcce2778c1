"""
What the fence costs: writes of a table with triggers of each form, against the same ones of a table without any.

The tables are the benchmark's own, on one shard, and the figures are microseconds of the server's processor, which do
not depend on what else the machine does: for one row in its own transaction, by its primary key; and for a row of a
statement that writes ten thousand, of one bucket or of all that the shard has.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.db import connections

from scripts.benchmarks.rounds import WARM_UP, Comparison, Value
from sharding import cluster_map
from sharding.fence import installation, triggers

ALIAS = "shard_a"
BARE = "bench_bare"
#: Each form, as the names of the figures begin.
FORMS = {triggers.ROW: "fence", triggers.STATEMENT: "statement"}
#: Single rows that a round writes.
SINGLE = 100
BULK = 10_000
SINGLES = {
    "insert": "INSERT INTO {table} (bucket, id, number, text) VALUES (%s, %s, 1, 'a text')",
    "update": "UPDATE {table} SET number = number + 1 WHERE bucket = %s AND id = %s",
    "delete": "DELETE FROM {table} WHERE bucket = %s AND id = %s",
}
#: Of many rows, whose buckets are given.
BULKS = {
    "insert": "INSERT INTO {table} (bucket, id, number, text) "
    f"SELECT (%s::smallint[])[1 + n %% %s], n, 1, 'a text' FROM generate_series(1, {BULK}) AS n",
    "update": "UPDATE {table} SET number = number + 1",
    "delete": "DELETE FROM {table}",
}

#: {(table, what was done): seconds of each round}
Times = dict[tuple[str, str], list[float]]


@contextmanager
def comparisons() -> Iterator[list[Comparison]]:
    """Make the tables; the figures are no ratios."""
    connection: Any = connections[ALIAS]
    with connection.cursor() as cursor:
        _make(cursor)
        try:
            yield []
        finally:
            _drop(cursor)


def values(rounds: int) -> Iterator[Value]:
    """Yield what each form costs."""
    connection: Any = connections[ALIAS]
    owned = list(cluster_map.current().buckets_of(ALIAS))
    with connection.cursor() as cursor:
        yield from _costs(_single(cursor, owned, rounds), "single", "a write of one row", SINGLE)
        yield from _costs(_bulk(cursor, owned, rounds), "bulk_row", f"a row of {BULK:,} in all buckets", BULK)
        yield from _costs(_bulk(cursor, owned[:1], rounds), "bulk_row_of_one", f"a row of {BULK:,} in one bucket", BULK)


def _make(cursor: Any) -> None:
    _drop(cursor)
    for name in _tables():
        cursor.execute(
            f"CREATE TABLE {name} (bucket smallint NOT NULL, id bigint PRIMARY KEY, number integer, text text);"
            f"CREATE INDEX ON {name} (bucket, id)"
        )
    schema = installation.inspect(connections[ALIAS]).schema
    for table, form in list(triggers.tables(cursor, {_table(form): form for form in FORMS})):
        for trigger in triggers.wanted(table, form):
            cursor.execute(triggers.creation(table, trigger, schema))


def _drop(cursor: Any) -> None:
    cursor.execute(f"DROP TABLE IF EXISTS {', '.join(_tables())}")


def _tables() -> list[str]:
    return [BARE, *map(_table, FORMS)]


def _table(form: str) -> str:
    return f"bench_{form}"


def _single(cursor: Any, owned: list[int], rounds: int) -> Times:
    found: Times = {(table, what): [] for table in _tables() for what in SINGLES}
    for turn in range(WARM_UP + rounds):
        rows = [(random.choice(owned), number) for number in range(SINGLE)]
        for what, sql in SINGLES.items():
            for table in _shuffled():
                seconds = _timed(cursor, sql.format(table=table), rows)
                if turn >= WARM_UP:
                    found[table, what].append(seconds)
    return found


def _bulk(cursor: Any, buckets: list[int], rounds: int) -> Times:
    found: Times = {(table, what): [] for table in _tables() for what in BULKS}
    for turn in range(WARM_UP + rounds):
        for table in _shuffled():
            for what, sql in BULKS.items():
                seconds = _timed(
                    cursor, sql.format(table=table), [(buckets, len(buckets)) if what == "insert" else None]
                )
                if turn >= WARM_UP:
                    found[table, what].append(seconds)
            # What is left of the rows would make the next round slower.
            cursor.execute(f"TRUNCATE {table}")
    return found


def _costs(times: Times, name: str, what: str, rows: int) -> Iterator[Value]:
    for form, prefix in FORMS.items():
        costs = {each: _cost(times[_table(form), each], times[BARE, each], rows) for each in SINGLES}
        parts = ", ".join(f"{each} {cost:.2f}" for each, cost in costs.items())
        yield Value(
            f"{prefix}_us_{name}", f"{form!r}: {what} ({parts})", statistics.mean(costs.values()), "µs more each"
        )


def _cost(fenced: list[float], bare: list[float], rows: int) -> float:
    """Return the median of what the triggers cost in each round, as microseconds of one row."""
    return statistics.median(ours - theirs for ours, theirs in zip(fenced, bare, strict=True)) * 1e6 / rows


def _shuffled() -> list[str]:
    return random.sample(_tables(), len(_tables()))


def _timed(cursor: Any, sql: str, rows: Sequence[Any]) -> float:
    """Execute a statement for each row; return the seconds for which the server's process had the processor."""
    begun = _processor(cursor)
    for params in rows:
        cursor.execute(sql, params)
    return _processor(cursor) - begun


def _processor(cursor: Any) -> float:
    # Nanoseconds, of a process on this machine.
    return int(Path(f"/proc/{cursor.connection.info.backend_pid}/schedstat").read_text().split()[0]) / 1e9

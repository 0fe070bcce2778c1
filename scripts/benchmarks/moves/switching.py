"""
For how long clients cannot write a bucket that changes hands, and what is there of their writes in the end.

A bucket goes to and fro: from its window every move is taken back, which copies nothing and switches as any other.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any

import psycopg

from scripts.benchmarks.moves import moving
from scripts.benchmarks.rounds import Value

CLIENTS = 8
#: Seconds for which a client's transaction is open at most.
LONGEST = 0.04
#: Seconds around a switch in which a gap counts as its own.
BEFORE, AFTER = 0.2, 0.5


def values(switches: int) -> Iterator[Value]:
    """Yield the gaps of so many switches, and what was lost or doubled."""
    bucket, shards = moving.buckets("shard_c")[0], ("shard_c", "shard_d")
    rows, plane = _rows(bucket)
    clients = _start(bucket, rows, plane)
    at = _switch(bucket, shards, switches)
    assert clients.stdin is not None
    clients.stdin.close()
    clients.stdin = None
    books = json.loads(clients.communicate()[0])
    acknowledged = sorted((each[0], each[1]) for book in books for each in book[3])
    gaps = sorted(_gap(acknowledged, closed, opened) * 1000 for closed, opened in at)
    cuts = statistics.quantiles(gaps, n=100, method="inclusive")
    what = f"{len(gaps)} switches under {len(acknowledged)} writes: the gap between two that are acknowledged"
    yield Value("gap_p50_ms", f"{what}, the median", cuts[49], "ms")
    yield Value("gap_p99_ms", "the gap that one in a hundred exceeds", cuts[98], "ms", 100)
    yield Value("gap_max_ms", "the longest gap", gaps[-1], "ms")
    lost, doubled = _wrong(books)
    yield Value("lost", "writes that were acknowledged and are not there", lost, "", 0)
    yield Value("duplicated", "rows that are there twice", doubled, "", 0)


def _rows(bucket: int) -> tuple[list[str], str]:
    with psycopg.connect(moving.url("shard_c")) as session:
        found = session.execute(
            "SELECT id::text, tailnum FROM flights_flight WHERE bucket = %s LIMIT %s", [bucket, CLIENTS]
        ).fetchall()
        session.execute("UPDATE flights_flight SET number = 0 WHERE id = ANY(%s::uuid[])", [[key for key, _ in found]])
    return [key for key, _ in found], found[0][1]


def _start(bucket: int, rows: list[str], plane: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "scripts.benchmarks.moves.clients"]
    clients = subprocess.Popen(
        command, cwd=moving.ROOT, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    urls = {alias: moving.url(alias) for alias in ("default", "shard_c", "shard_d")}
    job = {"bucket": bucket, "owner": "shard_c", "rows": rows, "plane": plane, "urls": urls, "longest": LONGEST}
    assert clients.stdin is not None
    assert clients.stdout is not None
    print(json.dumps(job), file=clients.stdin, flush=True)
    # Its first line says that it is at work.
    clients.stdout.readline()
    return clients


def _switch(bucket: int, shards: tuple[str, str], switches: int) -> list[tuple[float, float]]:
    """Let the bucket change hands, and return when it was closed and when it was open again."""
    at = []
    with moving.mover() as mover:
        plan = moving.plan((bucket, shards[1]))
        while True:
            steps = mover.carry(plan, window=3600.0, **moving.UNTHROTTLED)
            at.append((steps["Fence"], steps["Own"]))
            if len(at) >= switches:
                return at
            moving.take_back(plan)


def _gap(acknowledged: Sequence[tuple[float, float]], closed: float, opened: float) -> float:
    """Return the longest time between two writes around a switch, without that for which the second was under way."""
    place = max(1, bisect_left(acknowledged, (closed - BEFORE, 0.0)))
    longest = 0.0
    for (before, _), (after, open_for) in zip(acknowledged[place - 1 :], acknowledged[place:], strict=False):
        if before > opened + AFTER:
            break
        longest = max(longest, after - before - open_for)
    return longest


def _wrong(books: Sequence[Any]) -> tuple[int, int]:
    """Compare the rows of both shards with what the clients were told."""
    expected = {row: number for row, number, *_ in books} | {row: -1 for book in books for row in book[2]}
    found: dict[str, list[int]] = {}
    for alias in ("shard_c", "shard_d"):
        with psycopg.connect(moving.url(alias)) as session:
            query = (
                "SELECT f.id::text, f.number FROM flights_flight AS f JOIN sharding_fence AS s USING (bucket) "
                "WHERE s.state NOT IN ('moved', 'importing') AND (f.number = -1 OR f.id = ANY(%s::uuid[]))"
            )
            for row, number in session.execute(query, [list(expected)]):
                found.setdefault(row, []).append(number)
    lost = sum(1 for row, number in expected.items() if number not in found.get(row, []))
    doubled = sum(1 for numbers in found.values() if len(numbers) > 1) + len(found.keys() - expected.keys())
    return lost, doubled

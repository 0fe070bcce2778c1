"""
The chapter in which the cluster grows: commands as somebody at a shell types them, a writer beside them, and a proof.

This process keeps its four shards and asks the cluster nothing any more: a running process never gets other databases.
Those with the new environment are started for it, as a deployment would.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from demo import growing
from demo.growing import ledger
from demo.growing.comparison import Compared, compare
from demo.growing.ledger import Entry
from demo.growing.programs import ProgramFailed, Programs
from demo.report import Report
from demo.servers import SHARDS
from scripts.cluster import Cluster

NEW = "shard_e"
VARIABLE = "SHARD_URL_E"
PLAN = "plan.json"
#: Seconds in which the writer gets going.
WARMING = 2.0


def grow(cluster: Cluster, report: Report, *, corrupt: bool = False) -> None:
    """Add a server, move buckets to it under a writer, and compare all that is there afterwards."""
    report.chapter(growing)
    try:
        with tempfile.TemporaryDirectory(prefix="demo-") as folder:
            _grow(cluster, report, Path(folder), corrupt=corrupt)
    except ProgramFailed as error:
        report.failure("growing", str(error))


def _grow(cluster: Cluster, report: Report, folder: Path, *, corrupt: bool) -> None:
    with report.timed(f"A server more, empty, declared as {VARIABLE}"):
        cluster.up(shards=SHARDS + 1)
    programs = Programs(folder, cluster.env())
    shell = _Shell(report, programs)
    shell.run("migrate_all")
    shell.run("shards", "init")
    shell.run("rebalance", "plan", "--add", NEW, "--output", PLAN)
    report.text(
        "From here on, a process writes flights through the door: it inserts, updates and deletes them, one at a time "
        "or two in a block, of all planes. What is acknowledged, it writes into its ledger."
    )
    path = folder / "ledger"
    with _written(programs, path):
        begun = time.perf_counter()
        shell.run("rebalance", "apply", "--plan", PLAN, live=True)
        seconds = time.perf_counter() - begun
        writing = len(list(ledger.entries(path)))
    found = list(ledger.entries(path))
    _tell(report, json.loads(programs.manage("rebalance", "status", "--json")), seconds, found[:writing])
    report.text(
        "For ten minutes, each move can be taken back. Nobody wants to, so the former owners' rows are deleted:"
    )
    shell.run("rebalance", "apply", "--end-windows", "--to-the-end", live=True)
    if corrupt:
        _corrupt(cluster)
    _check(cluster, report, found)
    _ask_again(report, programs)


class _Shell:
    """Commands that are shown with what they print."""

    def __init__(self, report: Report, programs: Programs) -> None:
        self._report, self._programs = report, programs

    def run(self, *words: str, live: bool = False) -> None:
        self._report.typed(*words)
        # A picture that changes needs the terminal itself.
        output = self._programs.manage(*words, terminal=live and self._report.console.is_terminal)
        self._report.output(output)


@contextmanager
def _written(programs: Programs, path: Path) -> Iterator[None]:
    with programs.running("demo.growing.writer", str(path)):
        deadline = time.monotonic() + 30
        while (not path.exists() or not path.stat().st_size) and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(WARMING)
        yield


def _tell(report: Report, found: Any, seconds: float, entries: list[Entry]) -> None:
    moves = found["moves"]
    rows = sum(move["copied"] for move in moves)
    moved = found["switched"]
    gaps = ", ".join(f"{name} {each * 1000:.0f} ms" for name, each in found["gaps"].items())
    times = sorted(each.seconds for each in entries)
    report.lines(
        ("moved", f"{moved:,} buckets with {rows:,} rows in {seconds:.0f} s: {moved / seconds:.1f} buckets a second"),
        ("gap", f"{gaps}: so long could nobody write a bucket"),
        (
            "written",
            f"{sum(len(each.writes) for each in entries):,} rows in {len(entries):,} blocks, of which "
            f"{sum(each.calls > 1 for each in entries):,} had to be repeated",
            f"half of them within {times[len(times) // 2] * 1000:.0f} ms, the longest in {times[-1] * 1000:.0f} ms",
        ),
    )


def _check(cluster: Cluster, report: Report, found: list[Entry]) -> None:
    report.lines()
    impossible = ledger.repeat(found)
    compared = compare(cluster) if impossible is None else Compared(wrong=[impossible])
    counts = ", ".join(f"{name} {rows:,}" for name, rows in compared.rows.items() if rows)
    report.verdict(
        "ledger",
        compared.failure,
        f"each row of the ledger and each that was loaded is there once, and as it must be: {counts}",
    )


def _ask_again(report: Report, programs: Programs) -> None:
    outcomes = programs.ask("demo.growing.asked_again")
    for each in outcomes:
        if each["failure"] is not None:
            report.verdict(each["name"], each["failure"], "")
    right = [each for each in outcomes if each["failure"] is None]
    if right:
        told = f"{len(right)} fan-outs, asked again of {SHARDS + 1} shards, answer as one database with all rows does"
        report.verdict("fan-outs", None, told, compared=len(right))


def _corrupt(cluster: Cluster) -> None:
    """Lose an acknowledged write behind the cluster's back."""
    with psycopg.connect(cluster.url(NEW)) as connection:
        connection.execute("DELETE FROM flights_flight WHERE id = (SELECT max(id::text)::uuid FROM flights_flight)")

"""
Moves as a benchmark sees them: planned, handed to a mover's process, and watched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from sharding import cluster_map
from sharding.rebalance import registering
from sharding.rebalance.phases import Wanted
from sharding.rebalance.plan import Balance, Plan, PlannedMove, digest_of
from sharding.rebalance.sessions import open_session

ROOT = Path(__file__).resolve().parent.parent.parent.parent
#: Nothing waits for the application.
UNTHROTTLED = {"share": 1.0, "latency": None}


def url(alias: str) -> str:
    """Return where a database of the cluster is."""
    return os.environ[
        "DATABASE_URL" if alias == DEFAULT_DB_ALIAS else f"SHARD_URL_{alias.removeprefix('shard_').upper()}"
    ]


def buckets(alias: str) -> list[int]:
    """Return the buckets that a shard has by the map of the moment."""
    return [*cluster_map.refresh().buckets_of(alias)]


@dataclass
class MoverProcess:
    """A process that carries moves."""

    process: subprocess.Popen[str]

    def hand(self, plan: str, **options: Any) -> None:
        assert self.process.stdin is not None
        print(json.dumps({"plan": plan, "options": options}), file=self.process.stdin, flush=True)

    def told(self) -> Iterator[dict[str, Any]]:
        """Yield what it says, until its moves rest or it is gone."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            facts = json.loads(line)
            if facts.get("rests"):
                return
            yield facts

    def carry(self, plan: str, **options: Any) -> dict[str, float]:
        """Carry the moves of a plan as far as they go now, and return when each kind of step was done last."""
        self.hand(plan, **options)
        return {facts["step"]: facts["at"] for facts in self.told()}


@contextmanager
def mover() -> Iterator[MoverProcess]:
    """Keep a process up that carries moves."""
    command = [sys.executable, "-m", "scripts.benchmarks.moves.process"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        # Its first line says that it is at work.
        process.stdout.readline()
        yield MoverProcess(process)
    finally:
        process.kill()
        process.communicate()


def plan(*moves: tuple[int, str]) -> str:
    """Write moves of buckets to shards into the control database, and return the plan's number."""
    known = cluster_map.refresh()
    nothing = Balance((), known.imbalance())
    planned = tuple(PlannedMove(bucket, known.owner(bucket), to, 0, 0, "a benchmark") for bucket, to in moves)
    made = Plan(known.epoch, known.buckets, digest_of(known.owners), "rows", planned, nothing, nothing)
    with open_session(DEFAULT_DB_ALIAS, buckets=0, generation=0) as control:
        return str(registering.register(control, made)[0])


def take_back(plan: str) -> None:
    """Let the move of a plan that is in its window go back: without copying, as the rows are still there."""
    from uuid import UUID

    with open_session(DEFAULT_DB_ALIAS, buckets=0, generation=0) as control:
        registering.wish(control, Wanted.ROLLBACK, plan=UUID(plan))

"""
Processes of writers beside movers that carry buckets to and fro; in the end the shards are compared with the books.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from django.conf import settings
from django.db import connections
from django.db.models import Max

from sharding import bucket_of, cluster_map
from sharding.models import Move
from sharding.rebalance import registering
from sharding.rebalance.mover import Mover
from sharding.rebalance.options import Options
from tests import servers
from tests.layouts import tenant_on
from tests.moving.ledger.totals import FarTransfers, Sweeps, Transfers
from tests.moving.ledger.writers import Writer
from tests.moving.scenes import control_session, plan_of
from tests.shop.models import Order

#: Between which buckets move.
PLACES = ("default", "shard_a", "shard_b")
#: Rows of each kind that writers are given, for each tenant.
GIVEN = 12
MOVERS = 2
#: The processes, by how their transactions are isolated and whether they know where the buckets are.
Process = tuple[str | None, bool, tuple[str, ...]]
PROCESSES: tuple[Process, ...] = (
    (
        None,
        True,
        ("Single", "Blocks", "Families", "Transfers", "FarTransfers", "Sweeps", "Copies", "Statements", "Totals"),
    ),
    ("SERIALIZABLE", True, ("Single", "Blocks", "Transfers", "Totals")),
    ("REPEATABLE_READ", True, ("Single", "Families", "FarTransfers", "Statements")),
    # It learns where a bucket has gone from nobody but the shards.
    (None, False, ("Single", "Single", "Statements")),
)


@dataclass
class Campaign:
    """Writers for some seconds, and moves as long as they write."""

    seconds: float
    seed: int = 0
    #: Seconds for which a block stays open at most.
    longest: float = 2.0
    processes: tuple[Process, ...] = PROCESSES
    met: Counter[str] = field(default_factory=Counter)
    switches: int = 0
    #: Steps of movers that failed and were repeated.
    failures: int = 0
    #: The longest time in which a bucket was closed, by the mover's clock.
    gap: float | None = None

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.tenants = [tenant_on(alias, place) for place, alias in enumerate((*PLACES, "shard_a"))]
        self.given = {kind.__name__: self._give(kind) for kind in (Transfers, FarTransfers, Sweeps)}
        self.expected: dict[str, str] = {}

    def run(self) -> None:
        with self._writing() as processes:
            while any(each.poll() is None for each in processes):
                self._move()
        self.switches = Move.objects.using("default").filter(phase="done").count()
        found = Move.objects.using("default").aggregate(Max("gap"))
        self.gap = found["gap__max"]

    def told(self) -> str:
        """Return what happened, in a line."""
        gap = "-" if self.gap is None else f"{self.gap * 1000:.0f} ms"
        met = ", ".join(f"{number} {name}" for name, number in sorted(self.met.items()))
        return f"{self.switches} switches, longest gap {gap}, {self.failures} steps repeated; writers: {met}"

    # The writers

    def _give(self, kind: type[Writer]) -> list[tuple[str, int]]:
        rows = [
            Order(tenant_id=tenant, status=kind.status, total=kind.total)
            for tenant in self.tenants
            for _ in range(GIVEN)
        ]
        return [(str(row.pk), row.tenant_id) for row in Order.objects.bulk_create(rows)]

    def _jobs(self) -> list[dict[str, Any]]:
        number = 0
        sharers = Counter(kind for _, _, kinds in self.processes for kind in kinds)
        taken: Counter[str] = Counter()
        jobs = []
        for isolation, reads, kinds in self.processes:
            writers = []
            for kind in kinds:
                number += 1
                given = self.given.get(kind, [])[taken[kind] :: sharers[kind]]
                if kind == "Totals":
                    given = self.given["Sweeps"]
                taken[kind] += 1
                writers.append(
                    {
                        "kind": kind,
                        "number": number,
                        "tenants": self.tenants,
                        "given": given,
                        "reads": reads,
                        "longest": self.longest,
                    }
                )
            sharding = {**settings.SHARDING} if reads else {**settings.SHARDING, "MAP_TTL": 1e6}
            jobs.append(
                {
                    "databases": {alias: connections[alias].settings_dict["NAME"] for alias in connections},
                    "sharding": sharding,
                    "isolation": isolation,
                    "seed": self.seed,
                    "seconds": self.seconds,
                    "writers": writers,
                }
            )
        return jobs

    @contextmanager
    def _writing(self) -> Iterator[Sequence[subprocess.Popen[str]]]:
        command = [sys.executable, "-W", "error", "-m", "tests.moving.ledger.process"]
        processes = []
        for job in self._jobs():
            process = subprocess.Popen(
                command, cwd=servers.ROOT, env=os.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            assert process.stdin is not None
            process.stdin.write(json.dumps(job) + "\n")
            process.stdin.flush()
            processes.append(process)
        answers: list[str] = [""] * len(processes)

        def listen(place: int) -> None:
            answers[place] = processes[place].communicate()[0]

        listeners = [threading.Thread(target=listen, args=(place,)) for place in range(len(processes))]
        try:
            for process in processes:
                assert process.stdout is not None
                assert process.stdout.readline() == "ready\n"
            for listener in listeners:
                listener.start()
            yield processes
            for listener in listeners:
                listener.join()
        finally:
            for process in processes:
                process.kill()
        for answer in answers:
            self._note(json.loads(answer))

    def _note(self, answer: dict[str, Any]) -> None:
        assert answer["failures"] == [], "\n".join(answer["failures"])
        for book in answer["books"]:
            twice = self.expected.keys() & book["rows"].keys()
            assert not twice, f"Two writers have the same rows: {sorted(twice)[:5]}"
            self.expected |= book["rows"]
            self.met.update(book["met"])
            self.met[f"of {book['kind']}"] += book["met"].get("writes", 0)

    # The moves

    def _move(self) -> None:
        """Let each bucket go somewhere else, and wait until all have arrived."""
        known = cluster_map.refresh()
        buckets = sorted({bucket_of(tenant, model=Order) for tenant in self.tenants})
        moves = [
            (bucket, self.random.choice([alias for alias in PLACES if alias != known.owner(bucket)]))
            for bucket in buckets
        ]
        with control_session() as control:
            plan, _ = registering.register(control, plan_of(known, *moves))
        movers = [threading.Thread(target=self._carry, args=(plan,)) for _ in range(MOVERS)]
        for mover in movers:
            mover.start()
        for mover in movers:
            mover.join()
        ended = Move.objects.using("default").filter(plan=plan)
        self.failures += sum(ended.values_list("failures", flat=True))
        assert set(ended.values_list("phase", flat=True)) == {"done"}, list(ended.values())

    def _carry(self, plan: Any) -> None:
        left = Move.objects.using("default").filter(plan=plan).exclude(phase__in=["done", "aborted"])
        options = Options(window=0.0, share=1.0, latency=None, per_shard=4)
        deadline = time.monotonic() + 120
        try:
            while left.exists():
                assert time.monotonic() < deadline, list(left.values())
                Mover(options, plan=plan).run()
                time.sleep(0.02)
        finally:
            connections.close_all()

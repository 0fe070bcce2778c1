"""
Run the tests on PostgreSQL, in parts side by side, with coverage; or those that are of use there on SQLite.

Those that are marked ``slow`` run by themselves: the hardest of moves beside the others. Random programs are fewer
than a module of the differential tests tries by itself, unless all are asked for: then without coverage.

The first parts print as they go; what the others print follows when all have ended::

    python -m scripts.all_tests [--thorough | --sqlite | --slow]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent

#: What mostly waits: for locks, for deadlines, for servers that are down. The paths exist, or the run fails.
WAITING = ["tests/bank", "tests/deadlocks", "tests/lookups", "tests/policy", "tests/transactions"]
#: What takes about half of the rest of the time; the other half is mostly the migrations.
FIRST = [
    "tests/differential",
    "tests/ranks",
    "tests/reference",
    "tests/seam",
    "tests/shards",
    *(
        f"tests/test_{name}.py"
        for name in ("bench", "demo", "executor", "fan_out", "fields", "keyset", "local_cluster")
    ),
]
#: Buckets on their way.
MOVES = ["tests/fence", "tests/moving", "tests/test_rerouting.py"]
#: What moves are made of.
STEPS = ["tests/rebalance"]
#: About half of what is slow.
HARD_MOVES = [*(f"tests/moving/test_{name}.py" for name in ("kills", "rounds", "zombies")), "tests/rebalance"]
#: What SQLite is for: routing and fan-out while one develops.
ON_SQLITE = [
    "tests/contrib",
    "tests/reference",
    "tests/reference_copies",
    "tests/seam",
    "tests/transactions",
    *(
        f"tests/test_{name}.py"
        for name in ("attached_querysets", "attaching", "fan_out", "fields", "join_columns", "joining", "keyset")
    ),
    *(f"tests/test_{name}.py" for name in ("gather", "gathered_rows", "gathered_shapes")),
    *(f"tests/test_{name}.py" for name in ("conditions", "mixed_rows", "validation")),
    *(f"tests/test_{name}.py" for name in ("locality", "minting", "models", "raw_sql", "variance")),
]
COVERAGE = ["--cov", "--cov-report=", "--cov-fail-under=0"]
#: How many random programs are tried where nothing else is said.
PROGRAMS = "200"


@dataclass
class Part:
    """One run of pytest, with coverage data of its own."""

    name: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    thorough: bool = False
    marker: str = "not slow"

    @property
    def coverage(self) -> str:
        return f".coverage.{self.name}"

    def start(self, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        added = {} if self.thorough else {"SHARDKIT_DIFFERENTIAL_PROGRAMS": PROGRAMS, "COVERAGE_FILE": self.coverage}
        options = [] if self.thorough else COVERAGE
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "--durations=10", "-m", self.marker, *options, *self.arguments],
            cwd=ROOT,
            env={**os.environ, **added, **self.environment},
            stdout=output,
            stderr=output,
        )


def main() -> int:
    """Run the parts and report the coverage; return 1 if anything failed or too little is covered."""
    if "--sqlite" in sys.argv[1:]:
        return Part("sqlite", ON_SQLITE, {"SHARDKIT_TEST_ENGINE": "sqlite"}, thorough=True).start().wait()
    if "--slow" in sys.argv[1:]:
        return _slow()
    thorough = "--thorough" in sys.argv[1:]
    first = Part("first", FIRST, thorough=thorough)
    moves = Part("moves", MOVES, thorough=thorough)
    steps = Part("steps", STEPS, thorough=thorough)
    others = (*FIRST, *MOVES, *STEPS, *WAITING)
    second = Part("second", [f"--ignore={path}" for path in others], thorough=thorough)
    # Whole servers stand still there, and nothing beside it shall wait for them.
    waiting = Part("waiting", WAITING, {"SHARDKIT_TEST_CLUSTER": "waiting"}, thorough=thorough)
    # Movers use no more of Django than its settings.
    printed = [first] if thorough else [first, moves]
    beside = {"The other half": [second], "What waits": [waiting] if thorough else [waiting, steps]}
    has_failed = _side_by_side(printed, beside)
    lacks_coverage = not thorough and _coverage([first, moves, steps, second, waiting])
    return 1 if has_failed or lacks_coverage else 0


def _slow() -> int:
    others = Part("others", [f"--ignore={path}" for path in HARD_MOVES], thorough=True, marker="slow")
    moves = Part("moves", HARD_MOVES, {"SHARDKIT_TEST_CLUSTER": "moves"}, thorough=True, marker="slow")
    return 1 if _side_by_side([others], {"Moves that are made hard": [moves]}) else 0


def _side_by_side(printed: list[Part], beside: dict[str, list[Part]]) -> bool:
    """Run some parts one after the other, and beside them others, which do so too; return whether any has failed."""
    with ThreadPoolExecutor(len(beside)) as pool:
        running = {title: pool.submit(_run, parts) for title, parts in beside.items()}
        failed = [part.start().wait() != 0 for part in printed]
        for title, run in running.items():
            has_failed, output = run.result()
            print(f"\n{title}:", flush=True)
            sys.stdout.buffer.write(output)
            sys.stdout.flush()
            failed.append(has_failed)
    return any(failed)


def _run(parts: list[Part]) -> tuple[bool, bytes]:
    """Return whether one of some parts failed, and what they printed."""
    with tempfile.TemporaryFile() as output:
        failed = [part.start(output).wait() != 0 for part in parts]
        output.seek(0)
        return any(failed), output.read()


def _coverage(parts: list[Part]) -> bool:
    """Print the coverage of all parts together, and return whether it falls short."""
    command = [sys.executable, "-m", "coverage"]
    subprocess.run([*command, "combine", "-q", *(part.coverage for part in parts)], cwd=ROOT, check=True)
    return subprocess.run([*command, "report"], cwd=ROOT).returncode != 0


if __name__ == "__main__":
    sys.exit(main())

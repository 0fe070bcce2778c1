"""
Run the tests, with coverage: on PostgreSQL in two halves side by side, and those of the seam on SQLite.

Those that are marked ``slow`` run by themselves, in ``make test-slow``. Random programs are fewer than a module of the
differential tests tries by itself, unless all are asked for: then without coverage, and without SQLite.

The first half prints as it goes; what the second prints follows when both have ended::

    python -m scripts.all_tests [--thorough]
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

ROOT = Path(__file__).resolve().parent.parent

#: What takes about half of the time; the other half is mostly the migrations. The paths exist, or the run fails.
FIRST = [
    "tests/bank",
    "tests/differential",
    "tests/reference",
    "tests/seam",
    "tests/shards",
    "tests/transactions",
    *(
        f"tests/test_{name}.py"
        for name in ("bench", "demo", "executor", "fan_out", "fields", "keyset", "local_cluster")
    ),
]
#: What SQLite does by itself is a part of what is covered.
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
    *(f"tests/test_{name}.py" for name in ("gather", "gathered_rows")),
    *(f"tests/test_{name}.py" for name in ("conditions", "mixed_rows", "validation")),
    *(f"tests/test_{name}.py" for name in ("locality", "minting", "models", "raw_sql", "variance")),
]
COVERAGE = ["--cov", "--cov-report=", "--cov-fail-under=0"]
#: How many random programs are tried where nothing else is said.
PROGRAMS = "800"


@dataclass
class Part:
    """One run of pytest, with coverage data of its own."""

    name: str
    arguments: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    thorough: bool = False

    @property
    def coverage(self) -> str:
        return f".coverage.{self.name}"

    def start(self, output: IO[bytes] | None = None) -> subprocess.Popen[bytes]:
        added = {} if self.thorough else {"SHARDKIT_DIFFERENTIAL_PROGRAMS": PROGRAMS, "COVERAGE_FILE": self.coverage}
        options = [] if self.thorough else COVERAGE
        return subprocess.Popen(
            [sys.executable, "-m", "pytest", "--durations=10", "-m", "not slow", *options, *self.arguments],
            cwd=ROOT,
            env={**os.environ, **added, **self.environment},
            stdout=output,
            stderr=output,
        )


def main() -> int:
    """Run the parts and report the coverage; return 1 if anything failed or too little is covered."""
    thorough = "--thorough" in sys.argv[1:]
    first = Part("first", FIRST, thorough=thorough)
    second = Part("second", [f"--ignore={path}" for path in FIRST], thorough=thorough)
    sqlite = Part("sqlite", ON_SQLITE, {"SHARDKIT_TEST_ENGINE": "sqlite"})
    with tempfile.TemporaryFile() as beside:
        running = second.start(beside)
        try:
            failed = [first.start().wait() != 0]
            if not thorough:
                print("\nThe seam on SQLite:", flush=True)
                failed.append(sqlite.start().wait() != 0)
            failed.append(running.wait() != 0)
        finally:
            if running.poll() is None:
                running.terminate()
                running.wait()
        beside.seek(0)
        print("\nThe other half on PostgreSQL:", flush=True)
        sys.stdout.buffer.write(beside.read())
        sys.stdout.flush()
    lacks_coverage = not thorough and _coverage([first, second, sqlite])
    return 1 if any(failed) or lacks_coverage else 0


def _coverage(parts: list[Part]) -> bool:
    """Print the coverage of all parts together, and return whether it falls short."""
    command = [sys.executable, "-m", "coverage"]
    subprocess.run([*command, "combine", "-q", *(part.coverage for part in parts)], cwd=ROOT, check=True)
    return subprocess.run([*command, "report"], cwd=ROOT).returncode != 0


if __name__ == "__main__":
    sys.exit(main())

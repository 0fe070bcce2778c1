"""
Break the code on purpose, one way at a time, and see that the tests notice.

Each mutation replaces one piece of text in a copy of the checkout and runs the tests that should fail there. A mutation
that survives, or whose text is no longer found, fails the run::

    python -m scripts.mutations [--only NAME] [--part 1/3] [--list]
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from queue import Queue

from rich.console import Console
from rich.table import Table

from scripts import (
    mutation_list,
    mutations_of_commits,
    mutations_of_gathering,
    mutations_of_integrations,
    mutations_of_merging,
    mutations_of_moves,
    mutations_of_pages,
    mutations_of_policies,
)
from scripts.mutation_list import Mutation

ROOT = Path(__file__).resolve().parent.parent
MUTATIONS = [
    *mutation_list.MUTATIONS,
    *mutations_of_commits.MUTATIONS,
    *mutations_of_gathering.MUTATIONS,
    *mutations_of_integrations.MUTATIONS,
    *mutations_of_merging.MUTATIONS,
    *mutations_of_moves.MUTATIONS,
    *mutations_of_pages.MUTATIONS,
    *mutations_of_policies.MUTATIONS,
]
LEFT_OUT = shutil.ignore_patterns(".git", "var", ".venv*", "__pycache__", ".*_cache", "_build", "*.egg-info")
#: How many are tried side by side, each in a copy and on servers of its own.
AT_ONCE = 2
#: pytest's exit status when tests ran and some failed.
TESTS_FAILED = 1


def main() -> int:
    """Run the mutations, print a table, and return 1 if one of them was not noticed."""
    parser = argparse.ArgumentParser(description="Break the code on purpose and see that the tests notice.")
    parser.add_argument("--only", metavar="NAME", help="run the mutations whose name contains this")
    parser.add_argument(
        "--part", type=_part, default=(1, 1), metavar="K/N", help="run only every N-th, from the K-th on"
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    options = parser.parse_args()
    chosen = [each for each in MUTATIONS if not options.only or options.only in each.name]
    first, step = options.part
    chosen = chosen[first - 1 :: step]
    if options.list:
        print("\n".join(each.name for each in chosen))
        return 0
    if not chosen:
        parser.error(f"No mutation is called {options.only!r}; see --list.")
    return _run(chosen)


def _part(text: str) -> tuple[int, int]:
    first, _, step = text.partition("/")
    if not 1 <= int(first) <= int(step):
        raise argparse.ArgumentTypeError(f"{text!r} is not of the form 1/3.")
    return int(first), int(step)


def _run(mutations: list[Mutation]) -> int:
    console = Console()
    table = Table("mutation", "noticed", "seconds", "by")
    survived = 0
    with tempfile.TemporaryDirectory(prefix="shardkit-mutations-") as folder:
        copies = [Path(folder) / f"checkout-{number}" for number in range(min(AT_ONCE, len(mutations)))]
        free: Queue[Path] = Queue()
        for copy in copies:
            shutil.copytree(ROOT, copy, ignore=LEFT_OUT)
            free.put(copy)
        try:
            with ThreadPoolExecutor(len(copies)) as pool:
                for mutation, verdict, seconds in pool.map(partial(_timed, free=free), mutations):
                    survived += verdict != "yes"
                    colour = "green" if verdict == "yes" else "bold red"
                    console.print(f"[{colour}]{mutation.name}: {verdict}[/] ({seconds:.0f} s)")
                    table.add_row(mutation.name, f"[{colour}]{verdict}[/]", f"{seconds:.0f}", " ".join(mutation.tests))
        finally:
            for copy in copies:
                _stop_servers(copy)
    console.print(table)
    print(f"{len(mutations) - survived} of {len(mutations)} mutations were noticed.")
    return 1 if survived else 0


def _timed(mutation: Mutation, free: Queue[Path]) -> tuple[Mutation, str, float]:
    copy = free.get()
    started = time.monotonic()
    try:
        return mutation, _noticed(mutation, copy), time.monotonic() - started
    finally:
        free.put(copy)


def _noticed(mutation: Mutation, copy: Path) -> str:
    file = copy / mutation.file
    original = file.read_text()
    if original.count(mutation.old) != 1:
        return f"its text occurs {original.count(mutation.old)} times in {mutation.file}"
    file.write_text(original.replace(mutation.old, mutation.new))
    try:
        finished = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider", *mutation.tests],
            cwd=copy,
            env={
                **os.environ,
                "SHARDKIT_KEEP_CLUSTER": "1",
                "SHARDKIT_DIFFERENTIAL_PROGRAMS": "400",
                "SHARDKIT_UNSHRUNK": "1",
            },
            capture_output=True,
            text=True,
            timeout=400,
        )
    finally:
        file.write_text(original)
    if finished.returncode == TESTS_FAILED:
        return "yes"
    if finished.returncode == 0:
        return "NO"
    return f"pytest ended with {finished.returncode}: {finished.stdout[-600:]} {finished.stderr[-300:]}"


def _stop_servers(copy: Path) -> None:
    for folder in (copy / "var").glob("*-cluster-*/"):
        subprocess.run(
            [sys.executable, "-m", "scripts.local_cluster", "destroy", "--dir", str(folder)], cwd=copy, check=True
        )


if __name__ == "__main__":
    sys.exit(main())

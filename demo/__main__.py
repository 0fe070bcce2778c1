"""
Load real flights into a cluster of PostgreSQL servers, and walk a reader through what it can do.

Exit code 0: every answer was right; 1: one was not, or the demo could not run.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from contextlib import ExitStack
from pathlib import Path

import django

from demo import data_set, servers
from demo.data_set import DataSetMissing
from demo.report import Report
from scripts.postgres_programs import ClusterError

#: Fewer flights have not all that the chapters show.
FEWEST = 5_000


def main(arguments: list[str] | None = None) -> int:
    """Run the demo with the command line ``arguments``, and return the exit code."""
    options = _parser().parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A log may claim to be ASCII; the text has marks that are not.
        sys.stdout.reconfigure(encoding="utf-8", line_buffering=True)
    try:
        return _run(options, Report())
    except (ClusterError, DataSetMissing) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the servers are stopped.", file=sys.stderr)
        return 130


def _run(options: argparse.Namespace, report: Report) -> int:
    with report.timed(f"The data set, {data_set.PACKAGE} {data_set.VERSION}"):
        data = data_set.obtain()
    with ExitStack() as stack:
        with report.timed(f"{servers.SHARDS} shards and a control database, each a PostgreSQL server"):
            cluster = stack.enter_context(servers.running(options.dir))
        servers.export(cluster)
        os.environ["DJANGO_SETTINGS_MODULE"] = "demo.settings"
        django.setup()
        from demo import tour

        return tour.walk(data, report, cluster, rows=options.rows, corrupt=options.corrupt)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m demo", description=__doc__)
    parser.add_argument(
        "--rows", type=_rows, help=f"load only the first ROWS flights, at least {FEWEST} (default: all 336,776)"
    )
    parser.add_argument("--dir", type=Path, default=servers.FOLDER, help="the servers' folder (default: %(default)s)")
    # Proves that a wrong answer is noticed: one row of one shard is changed behind the cluster's back, or an
    # acknowledged write is lost after the moves.
    parser.add_argument("--corrupt", nargs="?", const="row", choices=("row", "write"), help=argparse.SUPPRESS)
    return parser


def _rows(text: str) -> int:
    number = int(text)
    if number < FEWEST:
        raise argparse.ArgumentTypeError(f"{text} is less than {FEWEST}")
    return number


if __name__ == "__main__":
    sys.exit(main())

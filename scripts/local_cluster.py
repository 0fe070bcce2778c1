"""
Run real PostgreSQL servers on this machine: one for the control database and one per shard.

    python scripts/local_cluster.py up --shards 4      start them; again: starts what does not run
    python scripts/local_cluster.py status             a table of the servers
    python scripts/local_cluster.py env > .env         their URLs, for sharding.env
    python scripts/local_cluster.py down               stop them; the data stays
    python scripts/local_cluster.py destroy            stop them and remove the data
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

# Run as a file, this module has its own folder on the path and not the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.cluster import Cluster
from scripts.cluster_state import DEFAULT_SHARDS, MAX_SHARDS
from scripts.postgres_programs import ClusterError

__all__ = ["Cluster", "ClusterError", "main"]

DEFAULT_FOLDER = "var/cluster"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line ``arguments`` and return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        COMMANDS[options.command](Cluster(options.dir), options)
    except ClusterError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _up(cluster: Cluster, options: argparse.Namespace) -> None:
    begun = time.monotonic()
    cluster.up(
        shards=options.shards,
        replicas=options.replicas,
        fast=options.fast,
        version=options.version,
        locale=options.locale,
    )
    _status(cluster, options)
    print(f"All servers run, after {time.monotonic() - begun:.1f} s.")


def _status(cluster: Cluster, options: argparse.Namespace) -> None:
    table = Table("server", "port", "state", "process")
    table.add_column("log", overflow="fold")
    for line in cluster.status():
        state = "stopped" if line.pid is None else "running"
        table.add_row(line.name, str(line.port), state, str(line.pid or ""), str(line.log))
    Console().print(table)


def _env(cluster: Cluster, options: argparse.Namespace) -> None:
    for variable, url in cluster.env().items():
        print(f"export {variable}={url}")


def _down(cluster: Cluster, options: argparse.Namespace) -> None:
    print(f"{cluster.down()} servers stopped.")


def _destroy(cluster: Cluster, options: argparse.Namespace) -> None:
    cluster.destroy()
    print(f"Removed the servers of {cluster.folder}.")


COMMANDS = {"up": _up, "status": _status, "env": _env, "down": _down, "destroy": _destroy}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=COMMANDS)
    parser.add_argument("--dir", default=DEFAULT_FOLDER, help=f"the cluster's folder (default: {DEFAULT_FOLDER})")
    new = parser.add_argument_group("what up makes; what is not given stays as it is")
    new.add_argument("--shards", type=_count, help=f"how many shards, at most {MAX_SHARDS} (default: {DEFAULT_SHARDS})")
    new.add_argument("--replicas", type=_count, help="how many replicas each server has (default: 0)")
    new.add_argument(
        "--fast",
        action="store_true",
        default=None,
        help="quick servers; a crash may lose their last commits or their data",
    )
    new.add_argument("--version", help="PostgreSQL's major version: 18 (default), 16, or one of Debian's packages")
    new.add_argument("--locale", help="the locale of the databases (default: C.UTF-8)")
    return parser


def _count(text: str) -> int:
    if not (text.isdecimal() and int(text) <= MAX_SHARDS):
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and {MAX_SHARDS}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())

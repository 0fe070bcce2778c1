"""
The servers of the demo: four shards and a control database, made anew at each start and stopped at the end. A fifth
shard joins them in the last chapter.

They are quick rather than durable: a crash of this machine may lose what the demo loads again anyway.
"""

from __future__ import annotations

import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg

from scripts.cluster import Cluster
from scripts.postgres_programs import ClusterError

SHARDS = 4
FOLDER = Path("var/demo-cluster")
REFERENCE = "reference"
REFERENCE_VARIABLE = "REFERENCE_URL"
#: How the benchmark's variables begin: the cluster's databases once more, with Django's own ENGINE.
PLAIN_PREFIX = "PLAIN_URL_"


@contextmanager
def running(folder: Path = FOLDER, *, fast: bool = True) -> Iterator[Cluster]:
    """
    Keep fresh servers up in ``folder``, and stop them however the block ends; fast ones do not wait for the disk.

    Raises:
        ClusterError: a server does not start, or another process uses the folder.
    """
    with _alone(folder), _signals_as_exceptions():
        cluster = Cluster(folder)
        try:
            if folder.exists():
                cluster.destroy()
            cluster.up(shards=SHARDS, fast=fast)
            _create_reference(cluster)
            yield cluster
        finally:
            cluster.down()


def export(cluster: Cluster) -> None:
    """Put the URLs of the servers, and no others, into this process's environment, for ``demo.settings``."""
    for name in list(os.environ):
        if name.startswith(("DATABASE_URL", "SHARD_URL", REFERENCE_VARIABLE, PLAIN_PREFIX)):
            del os.environ[name]
    os.environ.update(cluster.env())
    os.environ[REFERENCE_VARIABLE] = cluster.url("control", database=REFERENCE)


def _create_reference(cluster: Cluster) -> None:
    with psycopg.connect(cluster.url("control"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {REFERENCE}")


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.run").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ClusterError(f"Another process uses the servers of {folder}. Wait until it has ended.") from None
        yield


@contextmanager
def _signals_as_exceptions() -> Iterator[None]:
    """Let a closed terminal or a polite kill end the block as Ctrl-C does, so that the servers stop."""

    def leave(number: int, frame: Any) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

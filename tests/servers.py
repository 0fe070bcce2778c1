"""
The databases of the tests, and the servers behind them.

``default`` and three shards have this project's ENGINE. ``reference`` and ``plain`` have Django's own and lie beside
``default`` on the control server: the first is the one database that the differential test compares with, the second
shows what SQL Django itself sends. The settings only settle addresses; ``running()`` starts the servers.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import environ

from scripts.cluster import Cluster
from scripts.cluster_state import Wanted
from tests import in_memory

ROOT = Path(__file__).resolve().parent.parent
SHARDS = ("shard_a", "shard_b", "shard_c")
OWN_ENGINE = {"postgresql": "sharding.backends.postgresql", "sqlite": "sharding.backends.sqlite3"}
DJANGOS_ENGINE = {"postgresql": "django.db.backends.postgresql", "sqlite": "django.db.backends.sqlite3"}
# Which PostgreSQL, and in which locale. Debian's is tested as it is met in the field: text is not in byte order.
SERVERS = {"18": ("18", "C.UTF-8"), "16": ("16", "C.UTF-8"), "debian15": ("15", "en_US.UTF-8")}
MAX_RUNS = 8

engine = os.environ.get("SHARDKIT_TEST_ENGINE", "postgresql")
server = os.environ.get("SHARDKIT_TEST_SERVER", "18")
#: Runs that stop whole servers in their tracks may have some of their own.
cluster_name = os.environ.get("SHARDKIT_TEST_CLUSTER", server)
has_mariadb = os.environ.get("SHARDKIT_TEST_MARIADB") == "1"
given_urls = os.environ.get("SHARDKIT_TEST_URLS")

#: The number of this process's run, while there is one.
_run: int | None = None


def databases() -> dict[str, dict[str, Any]]:
    """Return DATABASES."""
    if engine == "sqlite":
        return {alias: {"ENGINE": _engine(alias), "NAME": ":memory:"} for alias in _aliases()}
    urls = json.loads(given_urls) if given_urls else _cluster_urls()
    return {alias: _database(alias, urls) for alias in _aliases()}


@contextmanager
def running() -> Iterator[int]:
    """
    Keep the servers up, and yield a number that no other test run on them has at the same time.

    The last of several runs stops the servers, unless SHARDKIT_KEEP_CLUSTER says otherwise. Within one that is open in
    this process, it is the same run.
    """
    if engine == "sqlite" or given_urls:
        yield 0
        return
    global _run
    if _run is not None:
        yield _run
        return
    with _alone():
        _run, place = _place()
    try:
        with _alone():
            _cluster().up(**_wanted())
        yield _run
    finally:
        with _alone():
            _run = None
            place.close()
            if os.environ.get("SHARDKIT_KEEP_CLUSTER") != "1" and not _others_run():
                in_memory.stop(_cluster())


def folder_of(name: str) -> Path:
    """Return where a cluster of the tests lives."""
    return in_memory.moved(ROOT / "var" / name)


def superuser_url(database: str) -> str:
    """Return the URL of a database on the control server for the one who may do anything."""
    return _cluster().url("control", database=database, superuser=True)


def process_of(alias: str) -> int:
    """Return the id of the process that is the server of a shard: the one that takes connections."""
    lock = _cluster().folder / alias / "data" / "postmaster.pid"
    return int(lock.read_text().splitlines()[0])


def restart(alias: str) -> None:
    """Restart a server as after a crash, without letting it finish anything; no other run may use it."""
    name = "control" if alias == "default" else alias
    cluster = _cluster()
    found = next(each for each in cluster._servers(cluster._load()) if each.name == name)
    # What it printed would keep whoever reads it waiting for the server's end.
    silent: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    done = found.programs.run(
        "pg_ctl", f"--pgdata={found.data}", "--mode=immediate", f"--log={found.log}", "--wait", "restart", **silent
    )
    assert done.returncode == 0, found.log_tail()


def _aliases() -> tuple[str, ...]:
    return ("default", *SHARDS, "reference", "plain")


def _engine(alias: str) -> str:
    return (DJANGOS_ENGINE if alias in {"reference", "plain"} else OWN_ENGINE)[engine]


def _database(alias: str, urls: Mapping[str, str]) -> dict[str, Any]:
    url = urls.get(alias) or f"{urls['default'].rpartition('/')[0]}/{alias}"
    return environ.Env.db_url_config(url, engine=_engine(alias))


def _cluster_urls() -> dict[str, str]:
    cluster = _cluster()
    cluster.reserve(**_wanted())
    return {"default": cluster.url("control")} | {alias: cluster.url(alias) for alias in SHARDS}


def _cluster() -> Cluster:
    return Cluster(folder_of(f"test-cluster-{cluster_name}"))


def _wanted() -> Wanted:
    version, locale = SERVERS[server]
    return {"shards": len(SHARDS), "fast": True, "version": version, "locale": locale}


# Each run holds the lock of one numbered file for as long as it lives, however it ends.


def _place() -> tuple[int, TextIO]:
    for number in range(MAX_RUNS):
        file = _locks(f"run-{number}")
        if _taken(file):
            return number, file
        file.close()
    raise RuntimeError(f"{MAX_RUNS} test runs use the servers of {_cluster().folder} already.")


def _others_run() -> bool:
    files = [_locks(f"run-{number}") for number in range(MAX_RUNS)]
    try:
        return not all(_taken(file) for file in files)
    finally:
        for file in files:
            file.close()


@contextmanager
def _alone() -> Iterator[None]:
    with _locks("gate") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _taken(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _locks(name: str) -> TextIO:
    folder = ROOT / "var" / "test-runs"
    folder.mkdir(parents=True, exist_ok=True)
    return (folder / f"{cluster_name}-{name}.lock").open("w")

"""
The bank's own servers: the control database and four shards, which tests restart, take down and cut off.
"""

from __future__ import annotations

import os
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
import psycopg

from scripts.cluster import Cluster
from scripts.cluster_accounts import ROLE
from scripts.cluster_state import CONTROL
from tests import in_memory, servers
from tests.dropping import drop_database

SHARDS = ("shard_a", "shard_b", "shard_c", "shard_d")
ALIASES = ("default", *SHARDS)
#: What clients are called in pg_stat_activity.
NAME = "bank"
# No pipe: the server would inherit it and keep it open.
QUIET: Any = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class BankCluster:
    """
    The servers in ``folder``, and a new database on each of them.

    They are durable: what a server has acknowledged survives its crash.
    """

    def __init__(self, folder: Path) -> None:
        self._cluster = Cluster(folder)
        self._database = f"bank_{secrets.token_hex(6)}"
        self._kept: dict[str, psycopg.Connection[Any]] = {}

    def up(self) -> None:
        version, locale = servers.SERVERS[servers.server]
        self._cluster.up(shards=len(SHARDS), version=version, locale=locale)
        for alias in ALIASES:
            self._make_logins_cheap(alias)
            with self.connect(alias, ROLE) as connection:
                connection.execute(f"CREATE DATABASE {self._database}")

    def _make_logins_cheap(self, alias: str) -> None:
        """Let a password be checked at once: clients come by the hundred."""
        password = urlsplit(self._cluster.url(_server(alias))).password
        superuser = self._cluster.url(_server(alias), database="postgres", superuser=True)
        with psycopg.connect(superuser, autocommit=True) as connection:
            connection.execute("SET scram_iterations = 1")
            connection.execute(f"ALTER ROLE {ROLE} PASSWORD '{password}'")

    def ask(self, alias: str, query: str, *params: Any) -> list[tuple[Any, ...]]:
        """Return rows, over a connection that is kept, and made anew where the server has been restarted."""
        if alias in self._kept:
            try:
                return self._kept[alias].execute(query, params).fetchall()
            except psycopg.OperationalError:
                self._kept[alias].close()
        self._kept[alias] = self.connect(alias)
        return self._kept[alias].execute(query, params).fetchall()

    def close(self) -> None:
        """Drop the databases, and stop the servers unless SHARDKIT_KEEP_CLUSTER says otherwise."""
        for connection in self._kept.values():
            connection.close()
        for alias in ALIASES:
            with self.connect(alias, ROLE) as connection:
                drop_database(connection, self._database)
        if os.environ.get("SHARDKIT_KEEP_CLUSTER") != "1":
            in_memory.stop(self._cluster)

    def databases(self) -> dict[str, Any]:
        """Return DATABASES of the bank's settings."""
        found: dict[str, Any] = {}
        for alias in ALIASES:
            url = self._cluster.url(_server(alias), database=self._database)
            found[alias] = environ.Env.db_url_config(url, engine="sharding.backends.postgresql")
            found[alias]["OPTIONS"] = {"application_name": NAME}
        return found

    def connect(self, alias: str, database: str = "") -> psycopg.Connection[Any]:
        url = self._cluster.url(_server(alias), database=database or self._database)
        return psycopg.connect(url, autocommit=True)

    def aliases(self) -> dict[str, str]:
        """Return the aliases by the ports of their servers."""
        ports = {line.name: str(line.port) for line in self._cluster.status()}
        return {ports[_server(alias)]: alias for alias in ALIASES}

    def restart(self, alias: str) -> None:
        """Restart a server as after a crash, without letting it finish anything."""
        self._control(alias, "restart")

    @contextmanager
    def down(self, alias: str) -> Iterator[None]:
        """Let a server crash, and bring it back afterwards."""
        self._control(alias, "stop")
        try:
            yield
        finally:
            self._control(alias, "start")

    def cut(self, alias: str) -> None:
        """End every client's session on a server, as a failover does."""
        query = "SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name LIKE %s"
        self.ask(alias, query, f"{NAME}%")

    def _control(self, alias: str, action: str) -> None:
        servers = self._cluster._servers(self._cluster._load())
        server = next(each for each in servers if each.name == _server(alias))
        mode = [] if action == "start" else ["--mode=immediate"]
        log = [] if action == "stop" else [f"--log={server.log}"]
        done = server.programs.run("pg_ctl", f"--pgdata={server.data}", *mode, *log, "--wait", action, **QUIET)
        assert done.returncode == 0, server.log_tail()


@contextmanager
def running() -> Iterator[BankCluster]:
    """Start servers that no other test run uses at the same time."""
    for number in range(servers.MAX_RUNS):
        with servers._locks(f"bank-{number}") as file:
            if not servers._taken(file):
                continue
            cluster = BankCluster(servers.folder_of(f"bank-cluster-{servers.server}-{number}"))
            cluster.up()
            try:
                yield cluster
            finally:
                cluster.close()
            return
    raise RuntimeError(f"{servers.MAX_RUNS} test runs of the bank are at work already.")


def _server(alias: str) -> str:
    return CONTROL if alias == "default" else alias

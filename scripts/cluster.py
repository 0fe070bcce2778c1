"""
Keep a cluster of PostgreSQL servers in one folder: one for the control database, one per shard, and their replicas.

The folder holds ``cluster.json`` (ports and passwords, for its owner alone) and the servers' folders. What is there is
taken as it is found: ``up`` makes what is missing, starts what does not run, and never removes a server.
"""

from __future__ import annotations

import fcntl
import json
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar, Unpack

from scripts.cluster_accounts import REPLICATOR, ROLE, SUPERUSER, ensure_accounts
from scripts.cluster_state import REPLICA, State, Wanted, names_of, variable_of
from scripts.free_ports import HOST, free_port, is_free
from scripts.postgres_programs import Account, ClusterError, Programs, away, copies, home_for, nickname, write_secret
from scripts.postgres_server import Server

T = TypeVar("T")
SETTINGS = {
    "wal_level": "logical",
    "max_prepared_transactions": "64",
    "max_connections": "200",
    "max_wal_senders": "20",
    "max_replication_slots": "20",
    # A replica that was down for a while still finds its place.
    "wal_keep_size": "256MB",
    "password_encryption": "scram-sha-256",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_line_prefix": "%m [%p] %q%u@%d ",
}
FAST = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    # A checkpoint costs little without a disk to wait for.
    "max_wal_size": "128MB",
    "min_wal_size": "32MB",
    "wal_keep_size": "64MB",
}
#: Since PostgreSQL 16: a password is checked at once, for clients that come by the thousand.
FAST_LOGINS = {"scram_iterations": "1"}


@dataclass(frozen=True)
class ServerStatus:
    """One line of ``status``."""

    name: str
    port: int
    pid: int | None
    log: Path


class Cluster:
    """The cluster in ``folder``."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder).resolve()
        self._account = Account.of_caller()

    def up(self, **wanted: Unpack[Wanted]) -> None:
        """
        Bring all servers up: make what is missing, recover what crashed, leave what runs.

        What is not given stays as it is; a new cluster gets 4 shards, no replicas, durable servers of version 18 and
        the locale C.UTF-8.

        Raises:
            ClusterError: a server does not start, or the cluster was made with other options.
        """
        with self._locked():
            state = self._reserved(wanted)
            servers = self._servers(state)
            primaries = [server for server in servers if REPLICA not in server.name]
            self._each(primaries, lambda server: self._bring_up(server, state))
            copies = [server for server in servers if REPLICA in server.name]
            self._each(copies, lambda server: self._bring_up_copy(server, servers, state))

    def reserve(self, **wanted: Unpack[Wanted]) -> None:
        """Settle ports and passwords as ``up`` would, so that ``env()`` can tell them, and start nothing."""
        with self._locked():
            self._reserved(wanted)

    def down(self) -> int:
        """
        Stop every server, replicas first, and return how many ran.

        Raises:
            ClusterError: a process is left.
        """
        if not self._is_there():
            return 0
        with self._locked():
            return self._down()

    def wipe(self) -> None:
        """
        Stop every server and remove its data; ports and passwords stay for the next time.

        Raises:
            ClusterError: a process is left.
        """
        if not self._is_there():
            return
        with self._locked():
            self._down()
            for server in self._servers(self._load()) if self._file.exists() else []:
                shutil.rmtree(server.folder, ignore_errors=True)

    def destroy(self) -> None:
        """
        Stop every server and remove all that the cluster keeps on disk, and nothing else.

        Raises:
            ClusterError: a process is left.
        """
        if not self._is_there():
            return
        with self._locked():
            self._down()
            home = home_for(self.folder, self._account)
            ours: list[Path] = []
            if self._file.exists():
                state = self._load()
                ours = [*(server.folder for server in self._servers(state)), *copies(state.version, home)]
            for path in (*ours, self._sockets()):
                shutil.rmtree(path, ignore_errors=True)
            # The file with the passwords goes last: whoever is interrupted here can begin again.
            self._file.unlink(missing_ok=True)
            for place in {home, self.folder}:
                # What else lies there is not ours to remove.
                if not any(place.iterdir()):
                    place.rmdir()

    def status(self) -> list[ServerStatus]:
        """Return one line per server, in order of name; ``pid`` is None for one that does not run."""
        servers = self._servers(self._load())
        return [ServerStatus(server.name, server.port, server.pid(), server.log) for server in servers]

    def env(self) -> dict[str, str]:
        """Return the environment variables that ``sharding.env`` reads, with the passwords."""
        return {variable_of(name): self.url(name) for name in self._load().ports}

    def url(self, name: str, *, database: str = ROLE, superuser: bool = False) -> str:
        """Return the URL of ``database`` on the server ``name``, as the ordinary role or as the superuser."""
        state = self._load()
        if name not in state.ports:
            raise ClusterError(f"The cluster {self.folder} has no server {name!r}, only {', '.join(state.ports)}.")
        user = SUPERUSER if superuser else ROLE
        return f"postgres://{user}:{state.passwords[user]}@{HOST}:{state.ports[name]}/{database}"

    def _reserved(self, wanted: Wanted) -> State:
        if not self._file.exists():
            self._refuse_orphans()
        state = self._load() if self._file.exists() else State.of(wanted)
        for option, found in (("version", state.version), ("locale", state.locale), ("fast", state.fast)):
            if wanted.get(option) not in {None, found}:
                raise ClusterError(
                    f"The cluster {self.folder} was made with {option}={found!r}, not {wanted.get(option)!r}. "
                    f"Destroy it first."
                )
        for user in (SUPERUSER, ROLE, REPLICATOR):
            state.passwords.setdefault(user, secrets.token_hex(16))
        for name in names_of(state.ports, wanted.get("shards"), wanted.get("replicas")):
            state.ports.setdefault(name, free_port(set(state.ports.values())))
        for server in self._servers(state):
            if not is_free(server.port) and server.pid() is None:
                state.ports[server.name] = free_port(set(state.ports.values()))
        write_secret(self._file, json.dumps(asdict(state), indent=2))
        return state

    def _bring_up(self, server: Server, state: State) -> None:
        server.create(password=state.passwords[SUPERUSER], locale=state.locale, durable=not state.fast)
        server.start(_settings(state))
        ensure_accounts(server.port, state.passwords)

    def _bring_up_copy(self, server: Server, servers: Iterable[Server], state: State) -> None:
        primary = next(other for other in servers if other.name == server.name.partition(REPLICA)[0])
        password = state.passwords[REPLICATOR]
        server.copy_of(primary, user=REPLICATOR, password=password)
        conninfo = f"host={HOST} port={primary.port} user={REPLICATOR} password={password}"
        server.start(_settings(state) | {"primary_conninfo": conninfo})

    def _down(self) -> int:
        if not self._file.exists():
            self._refuse_orphans()
            return 0
        # Replicas first: a primary that stops waits until they have received all it wrote.
        servers = sorted(self._servers(self._load()), key=lambda server: REPLICA not in server.name)
        copies = [server for server in servers if REPLICA in server.name]
        return sum(self._each(copies, Server.stop)) + sum(self._each(servers[len(copies) :], Server.stop))

    def _servers(self, state: State) -> list[Server]:
        home = home_for(self.folder, self._account)
        sockets = self._account.folder(self._sockets())
        programs = Programs.of_version(state.version, home=home, account=self._account)
        return [Server(name, home / name, port, sockets, programs) for name, port in sorted(state.ports.items())]

    @property
    def _file(self) -> Path:
        return self.folder / "cluster.json"

    def _sockets(self) -> Path:
        # A socket's path has room for about 100 characters, so it cannot lie in the folder.
        return Path("/tmp") / nickname(self.folder)

    def _load(self) -> State:
        if not self._file.exists():
            raise ClusterError(f"There is no cluster in {self.folder}. Start one with: scripts/local_cluster.py up")
        return State.read(self._file)

    def _is_there(self) -> bool:
        """Return whether there is a folder of this cluster, which is not made for the answer."""
        if not self.folder.exists():
            self._refuse_orphans()
        return self.folder.exists()

    def _refuse_orphans(self) -> None:
        orphans = sorted(str(data.parent) for home in (self.folder, away(self.folder)) for data in home.glob("*/data"))
        if orphans:
            raise ClusterError(
                f"{self._file} is missing, and with it the passwords of the servers in {', '.join(orphans)}. "
                f"Remove these folders and try again."
            )

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ClusterError(
                f"The folder {self.folder} cannot be made: {error.strerror}. Give another --dir."
            ) from error
        with (self.folder.parent / f".{self.folder.name}.lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @staticmethod
    def _each(servers: list[Server], function: Callable[[Server], T]) -> list[T]:
        pool = ThreadPoolExecutor(max_workers=max(len(servers), 1))
        try:
            tasks = [pool.submit(function, server) for server in servers]
            wait(tasks)
        finally:
            # Ctrl-C ends the first wait; a server that is starting must be up before its caller can stop it.
            pool.shutdown()
        failures = [str(task.exception()) for task in tasks if isinstance(task.exception(), ClusterError)]
        if failures:
            raise ClusterError("\n".join(failures))
        return [task.result() for task in tasks]


def _settings(state: State) -> dict[str, str]:
    fast = FAST | (FAST_LOGINS if int(state.version) >= 16 else {})
    return SETTINGS | (fast if state.fast else {})

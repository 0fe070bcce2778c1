"""
Run one PostgreSQL server: make it, or make it as a replica of another; start it, stop it, and recover it after a crash.

Everything of a server lies in its folder: ``data``, and ``server.log`` beside it. Nothing here remembers anything
between two calls; whether a server runs is read from its ``postmaster.pid`` and from the processes with its title.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from scripts.free_ports import HOST
from scripts.postgres_programs import ClusterError, Programs, nickname

SETTINGS_FILE = "shardkit.conf"
TAIL = 25
PATIENCE = 60.0


@dataclass(frozen=True)
class Server:
    """One server: its name, its folder, where it listens, and the programs that run it."""

    name: str
    folder: Path
    port: int
    sockets: Path
    programs: Programs

    @property
    def data(self) -> Path:
        """Return the data folder."""
        return self.folder / "data"

    @property
    def title(self) -> str:
        """Return the name that its processes show; no other server of this machine has it."""
        return nickname(self.folder)

    @property
    def log(self) -> Path:
        """Return the file that the server logs to."""
        return self.folder / "server.log"

    def create(self, *, password: str, locale: str, durable: bool) -> None:
        """
        Make an empty data folder whose superuser ``postgres`` has ``password``, unless there is one.

        Raises:
            ClusterError: initdb failed.
        """

        def initdb(target: Path) -> None:
            secret = self.folder / "password"
            self.programs.account.write(secret, password)
            # PostgreSQL's own C.UTF-8 is the same on every platform; the C library's is not.
            provider = ["--locale-provider=builtin"] if locale == "C.UTF-8" and self.programs.version >= 17 else []
            arguments = [f"--pgdata={target}", f"--pwfile={secret}", "--username=postgres", "--auth=scram-sha-256"]
            try:
                self._make("initdb", *arguments, "--encoding=UTF8", f"--locale={locale}", *provider, "--no-sync")
            finally:
                secret.unlink()
            if durable:
                self._make("initdb", f"--pgdata={target}", "--sync-only")

        self._made_whole(initdb)

    def copy_of(self, primary: Server, *, user: str, password: str) -> None:
        """
        Make a data folder that follows ``primary``, unless there is one.

        Raises:
            ClusterError: pg_basebackup failed.
        """

        def basebackup(target: Path) -> None:
            arguments = [f"--host={HOST}", f"--port={primary.port}", f"--username={user}", "--no-password"]
            self._make(
                *("pg_basebackup", f"--pgdata={target}", *arguments, "--checkpoint=fast", "-R"),
                env={"PGPASSWORD": password},
            )
            # The primary may come back on another port: the address belongs to the settings that each start writes.
            automatic = target / "postgresql.auto.conf"
            lines = automatic.read_text().splitlines(keepends=True)
            kept = "".join(line for line in lines if not line.startswith("primary_conninfo"))
            self.programs.account.write(automatic, kept)

        self._made_whole(basebackup)

    def start(self, settings: Mapping[str, str]) -> None:
        """
        Start the server with ``settings``, after whatever way the last run ended; do nothing if it runs.

        Raises:
            ClusterError: it did not start; the message ends with the server's log.
        """
        if self.pid() is None:
            # What a killed server left would be in the way.
            self.stop()
            self._write_settings(settings)
            written = self.log.stat().st_size if self.log.exists() else 0
            options = [f"--pgdata={self.data}", f"--log={self.log}", f"--timeout={PATIENCE:.0f}", "--wait"]
            # No pipe: the server would inherit it and keep it open.
            silence: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
            started = self.programs.run("pg_ctl", *options, "start", **silence)
            if started.returncode != 0:
                raise self._failure("did not start", since=written)
        self._await_readiness()

    def stop(self) -> bool:
        """
        Stop the server and wait until no process of it is left; return whether there was one.

        Raises:
            ClusterError: processes are left.
        """
        ran = bool(self.processes())
        for number, seconds in ((signal.SIGINT, PATIENCE), (signal.SIGQUIT, 10.0), (signal.SIGKILL, 10.0)):
            if not self.processes():
                break
            pid = self.pid()
            if pid is not None:
                self._end({pid}, number, seconds)
            elif not _holds(lambda: not self.processes(), 3.0):
                # The children of a killed postmaster end by themselves, unless they are busy.
                self._end(self.processes(), number, seconds)
        if self.processes():
            raise self._failure(f"did not stop; left are the processes {sorted(self.processes())}")
        self._remove_locks()
        return ran

    def pid(self) -> int | None:
        """Return the process id of the running server, or None."""
        lock = self.data / "postmaster.pid"
        with contextlib.suppress(FileNotFoundError):
            pid = int(lock.read_text().partition("\n")[0] or 0)
            return pid if pid in self.processes() else None
        return None

    def processes(self) -> set[int]:
        """Return the ids of all processes of this server: the postmaster, and its children also when it was killed."""
        found = set()
        for process in psutil.process_iter():
            # A process may end, or be hidden from the caller, while it is read.
            with contextlib.suppress(psutil.Error):
                arguments = process.cmdline()
                if str(self.data) in arguments or self._is_title(" ".join(arguments)):
                    found.add(process.pid)
        return found

    def _is_title(self, argument: str) -> bool:
        # Children rename themselves to "postgres: <cluster_name>: checkpointer".
        return argument.startswith(f"postgres: {self.title}: ")

    def log_tail(self, *, since: int = 0) -> str:
        """Return the last lines of the log, from the byte ``since`` on."""
        if not self.log.exists():
            return ""
        with self.log.open("rb") as file:
            file.seek(since)
            return "\n".join(file.read().decode(errors="replace").splitlines()[-TAIL:])

    def _made_whole(self, make: Callable[[Path], None]) -> None:
        account = self.programs.account
        account.folder(self.folder)
        for remains in self.folder.glob("data.partial-*"):
            # A killed run's initdb may still be writing there; what it leaves goes next time.
            shutil.rmtree(remains, ignore_errors=True)
        if not self.data.exists():
            partial = account.folder(self.folder / f"data.partial-{secrets.token_hex(4)}")
            make(partial)
            partial.rename(self.data)

    def _make(self, program: str, *arguments: str, env: Mapping[str, str] | None = None) -> None:
        done = self.programs.run(program, *arguments, env=env)
        if done.returncode != 0:
            raise ClusterError(f"{program} of the server {self.name!r} failed:\n{done.stdout.strip()}")

    def _write_settings(self, settings: Mapping[str, str]) -> None:
        own = {
            "cluster_name": self.title,
            "listen_addresses": HOST,
            "port": str(self.port),
            "unix_socket_directories": str(self.sockets),
        }
        lines = [f"{name} = '{value.replace(chr(39), chr(39) * 2)}'\n" for name, value in {**own, **settings}.items()]
        self.programs.account.write(self.data / SETTINGS_FILE, "".join(lines))
        include = f"include '{SETTINGS_FILE}'\n"
        main = self.data / "postgresql.conf"
        if include not in main.read_text():
            self.programs.account.write(main, main.read_text() + include)

    def _end(self, pids: set[int], number: signal.Signals, seconds: float) -> None:
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        _holds(lambda: not self.processes(), seconds)

    def _remove_locks(self) -> None:
        # They guard the shared memory, so no process may be left. PostgreSQL itself would trust the process id in those
        # of a killed server, which may be somebody else's by now.
        for path in (self.data / "postmaster.pid", self._socket, self._socket.with_name(f"{self._socket.name}.lock")):
            path.unlink(missing_ok=True)

    @property
    def _socket(self) -> Path:
        return self.sockets / f".s.PGSQL.{self.port}"

    def _await_readiness(self) -> None:
        # The lock file says "ready" of a replica that still refuses connections.
        def ready() -> bool:
            return self.programs.run("pg_isready", f"--host={HOST}", f"--port={self.port}").returncode == 0

        if not _holds(ready, PATIENCE):
            raise self._failure("is not ready")

    def _failure(self, what: str, *, since: int = 0) -> ClusterError:
        tail = re.sub(r"(?m)^", "    ", self.log_tail(since=since))
        return ClusterError(f"The PostgreSQL server {self.name!r} {what}. The end of its log {self.log}:\n{tail}")


def _holds(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True

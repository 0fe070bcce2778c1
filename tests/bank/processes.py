"""
Clients of the bank as a test sees them: it gives them jobs, waits for them, kills them, and reads what they say.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import psutil

from tests import servers
from tests.bank.steps import Fault
from tests.bank.transfers import Transfer

PATIENCE = 60.0
ENDED = {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}


def await_true(condition: Callable[[], object], what: str) -> None:
    """Wait until something holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"After {PATIENCE:.0f} seconds, not: {what}"
        time.sleep(0.003)


@dataclass
class Client:
    """One process with one job."""

    pid: int
    mother: int
    path: Path

    def notes(self, kind: str) -> list[list[Any]]:
        """Return what it has noted under a word, in order."""
        text = self.path.read_text() if self.path.exists() else ""
        found = [json.loads(line) for line in text.splitlines()]
        return [rest for word, *rest in found if word == kind]

    def wait(self) -> Client:
        """Wait until it has ended, in whatever way."""
        self._await(ENDED)
        assert self.notes("crashed") == []
        return self

    def wait_until_stopped(self) -> Client:
        """Wait until its fault has stopped it."""
        self._await({psutil.STATUS_STOPPED})
        return self

    def go_on(self) -> Client:
        os.kill(self.pid, signal.SIGCONT)
        return self

    def kill(self) -> Client:
        if self._status() not in ENDED:
            os.kill(self.pid, signal.SIGKILL)
        return self.wait()

    def _await(self, wanted: set[str]) -> None:
        await_true(lambda: self._status() in wanted, f"process {self.pid} becomes one of {wanted}")

    def _status(self) -> str:
        try:
            process = psutil.Process(self.pid)
            # The number may be another process's by now.
            return str(process.status() if process.ppid() == self.mother else psutil.STATUS_DEAD)
        except psutil.NoSuchProcess:
            return str(psutil.STATUS_DEAD)


@dataclass
class Clients:
    """The process that all clients are forked from, so that each starts in milliseconds."""

    databases: Mapping[str, Any]
    folder: Path
    #: More of settings.SHARDING.
    sharding: Mapping[str, Any] = field(default_factory=dict)
    everyone: list[Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._numbers = count()
        self._mother = subprocess.Popen(
            [sys.executable, "-m", "tests.bank.client"],
            cwd=servers.ROOT,
            env={
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "tests.bank.settings",
                "BANK_DATABASES": json.dumps(self.databases),
                "BANK_SHARDING": json.dumps(self.sharding),
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def transfers(self, transfers: Iterable[Transfer], *, fault: Fault | None = None, stay: float = 0) -> Client:
        return self._start("transfers", fault, transfers=[each.as_dict() for each in transfers], stay=stay)

    def work(self, name: str, *, seed: int, transfers: int, accounts: int) -> Client:
        return self._start("work", None, name=name, seed=seed, transfers=transfers, accounts=accounts)

    def resolve(self, *, min_age: float = 0, fault: Fault | None = None, patience: int = 20) -> Client:
        """Let a resolver look, which waits for another one's tombstone for some seconds."""
        return self._start("resolve", fault, min_age=min_age, patience=patience)

    def open_accounts(self, accounts: int, balance: int) -> Client:
        return self._start("open_accounts", None, accounts=accounts, balance=balance)

    def close(self) -> None:
        """Let the mother go; she is the only one that is waited for."""
        for each in self.everyone:
            each.kill()
        self._mother.communicate(timeout=PATIENCE)

    def _start(self, job: str, fault: Fault | None, **details: Any) -> Client:
        path = self.folder / f"client-{next(self._numbers)}"
        given = None if fault is None else {"at": fault.at, "when": fault.when, "acts": fault.acts}
        line = json.dumps({"job": job, "outcome": str(path), "fault": given, **details})
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        print(line, file=self._mother.stdin, flush=True)
        self.everyone.append(Client(int(self._mother.stdout.readline()), self._mother.pid, path))
        return self.everyone[-1]

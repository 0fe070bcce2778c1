"""
Programs with an environment of their own: commands of ``manage.py`` as somebody at a shell runs them, and the writer.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
#: Seconds after which a program that should end is taken for lost.
PATIENCE = 60.0


class ProgramFailed(Exception):
    """A program ended with an error; the message holds what it said."""


class Programs:
    """A folder and an environment to run programs in."""

    def __init__(self, folder: Path, variables: Mapping[str, str]) -> None:
        self._folder = folder
        self._environment = os.environ | dict(variables) | {"PYTHONPATH": str(ROOT)}

    def manage(self, *words: str, terminal: bool = False) -> str:
        """
        Run a command of ``manage.py`` and return what it printed; with ``terminal``, it prints there.

        Raises:
            ProgramFailed: it ended with an error.
        """
        return self._run("django", *words, terminal=terminal)

    def ask(self, module: str) -> Any:
        """
        Run a module that prints JSON.

        Raises:
            ProgramFailed: it ended with an error.
        """
        return json.loads(self._run(module))

    @contextmanager
    def running(self, module: str, *words: str) -> Iterator[None]:
        """
        Keep a module running inside, and ask it to stop.

        Raises:
            ProgramFailed: it ended with an error, before or after.
        """
        with subprocess.Popen(self._command(module, *words), **self._places(), stderr=subprocess.PIPE) as process:
            try:
                yield
            finally:
                errors = _stopped(process)
                if process.returncode:
                    # Whatever else went wrong meanwhile, this is the reason.
                    raise ProgramFailed(f"{module} ended with {process.returncode}:\n{errors.strip()}")

    def _run(self, module: str, *words: str, terminal: bool = False) -> str:
        channel = None if terminal else subprocess.PIPE
        done = subprocess.run(
            self._command(module, *words), **self._places(), stdout=channel, stderr=channel, check=False
        )
        if done.returncode:
            raise ProgramFailed(
                f"{' '.join([module, *words])} ended with {done.returncode}:\n{(done.stderr or '').strip()}"
            )
        return done.stdout or ""

    def _command(self, module: str, *words: str) -> list[str]:
        return [sys.executable, *(f"-W{each}" for each in sys.warnoptions), "-m", module, *words]

    def _places(self) -> dict[str, Any]:
        return {"cwd": self._folder, "env": self._environment, "text": True, "encoding": "utf-8"}


def _stopped(process: subprocess.Popen[str]) -> str:
    """Ask a program to stop, make it if need be, and return what it said on the error channel."""
    process.send_signal(signal.SIGTERM)
    try:
        return process.communicate(timeout=PATIENCE)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1]

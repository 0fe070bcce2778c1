"""
Runs ``manage.py`` of other projects in forks of one process that has imported Django: most of a command's time is that.

    python -W error -m tests.manage_server

reads a line of JSON for each command from its standard input and answers with its exit code when it has ended.
"""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parent.parent
#: All that needs no settings, and nothing of ours: how that behaves when it is imported is a part of what is tested.
PRELOADED = (
    "django.contrib.contenttypes",
    "django.core.management.commands.makemigrations",
    "django.core.management.commands.migrate",
    "django.core.management.commands.shell",
    "django.db.backends.postgresql.base",
    "django.db.backends.sqlite3.base",
    "django.db.migrations.executor",
    "django.db.models",
    "django.middleware.csrf",
    "django.views.generic",
    "environ",
    "rich.progress",
    "rich.table",
)


class ManageServer:
    """The process, as tests use it; it starts with the first command."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None
        self._lock = threading.Lock()

    def run(self, folder: Path, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str, str]:
        """Run a command in a folder and return its exit code, its output and its error output."""
        with tempfile.TemporaryDirectory() as outputs, self._lock:
            paths = [f"{outputs}/{name}" for name in ("output", "errors")]
            job = {
                "folder": str(folder),
                "arguments": list(arguments),
                "environment": dict(environment),
                "paths": paths,
            }
            process = self._started()
            assert process.stdin is not None
            assert process.stdout is not None
            try:
                process.stdin.write(json.dumps(job) + "\n")
                process.stdin.flush()
                code = int(process.stdout.readline())
            except BaseException:
                # A later command would be given the answer to this one.
                process.kill()
                self.stop()
                raise
            output, errors = (Path(path).read_text() for path in paths)
            return code, output, errors

    def stop(self) -> None:
        """Let the process end."""
        if self._process is not None:
            self._process.communicate()
            self._process = None

    def _started(self) -> subprocess.Popen[str]:
        if self._process is None:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error", "-m", "tests.manage_server"],
                cwd=ROOT,
                # What is installed may be another checkout.
                env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"},
                text=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        return self._process


server = ManageServer()


def _serve() -> None:
    for name in PRELOADED:
        __import__(name)
    while line := sys.stdin.readline():
        child = os.fork()
        if not child:
            _command(json.loads(line))
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _command(job: dict[str, Any]) -> NoReturn:
    """Be what ``python -W error manage.py`` is, and end as it does, so that what is covered is stored."""
    for number, path in enumerate([os.devnull, *job["paths"]]):
        opened = os.open(path, os.O_RDWR | os.O_CREAT)
        os.dup2(opened, number)
        os.close(opened)
    os.chdir(job["folder"])
    os.environ.clear()
    os.environ.update(job["environment"])
    sys.argv = ["manage.py", *job["arguments"]]
    sys.path[0] = job["folder"]
    runpy.run_path("manage.py", run_name="__main__")
    sys.exit()


if __name__ == "__main__":
    _serve()

"""
Movers in processes of their own, forked from the test's, which are lost or stand still at a statement.
"""

from __future__ import annotations

import json
import os
import select
import signal
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NoReturn

from django.db import connections

Say = Callable[[Any], None]
#: Seconds after which a process that should have ended is given up.
PATIENCE = 60.0


@dataclass
class Victim:
    """A process, and what it says."""

    pid: int
    _said: int

    def said(self) -> Iterator[Any]:
        """Yield what it says until it is gone, or stands still and says nothing."""
        with os.fdopen(self._said) as lines:
            for line in lines:
                yield json.loads(line)

    def end(self) -> int:
        """Wait for its end, and return its exit status, negative for a signal."""
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def is_standing(self) -> bool:
        """Wait until it stands still, or is gone."""
        _, status = os.waitpid(self.pid, os.WUNTRACED)
        return os.WIFSTOPPED(status)

    def go_on(self) -> int | None:
        """Wake it, and return its exit status; None if it does not end, and has been killed."""
        os.kill(self.pid, signal.SIGCONT)
        file = os.pidfd_open(self.pid)
        try:
            ended, _, _ = select.select([file], [], [], PATIENCE)
        finally:
            os.close(file)
        if not ended:
            self.kill()
            return None
        return self.end()

    def kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.end()


def start(act: Callable[[Say], None]) -> Victim:
    """Call ``act`` in a new process, with a function by which it says something; the process ends with it."""
    # A child must not have the sessions of its parent.
    connections.close_all()
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # Threads that wait for work hold no lock.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.close(reading)
        _live(act, writing)
    os.close(writing)
    return Victim(pid, reading)


def _live(act: Callable[[Say], None], writing: int) -> NoReturn:
    def say(what: Any) -> None:
        os.write(writing, json.dumps(what).encode() + b"\n")

    status = 1
    try:
        act(say)
        status = 0
    except BaseException:
        traceback.print_exc(file=sys.__stderr__)
    finally:
        # Nothing of pytest's is to be cleaned up here.
        os._exit(status)

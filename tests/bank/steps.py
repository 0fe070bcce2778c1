"""
The statements that a block of the bank sends at its commit, numbered, and a fault before or after one of them.

This wraps the driver of the process it runs in: a client of the test, which has nothing else to do.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg.pq import TransactionStatus

#: Threads of the toolkit that work beside the block.
BESIDE = "shardkit"


@dataclass(frozen=True)
class Fault:
    """
    What happens at a statement.

    ``kill`` ends the process at once, ``stop`` holds it until it is sent SIGCONT, and ``cut`` shuts the connection that
    the statement goes over: before it, so that it never arrives, or after it, so that its answer is lost.
    """

    #: The number of the statement, from 0 on; or a word that its SQL contains, whose first occurrence is meant.
    at: int | str
    when: str
    acts: tuple[str, ...]


class Steps:
    """Numbers the statements of this process from ``begin`` on, one at a time."""

    def __init__(self, fault: Fault | None = None) -> None:
        self.fault = fault
        #: "port sql" of the statements that were sent.
        self.sent: list[str] = []
        self._counting = False
        # Those of several threads are put in a row, so that each number has one meaning.
        self._turn = threading.RLock()
        self._execute = psycopg.Cursor.execute
        self._wrap()

    def begin(self) -> None:
        self._counting = True

    def end(self) -> None:
        self._counting = False

    def _wrap(self) -> None:
        execute, commit, rollback = psycopg.Cursor.execute, psycopg.Connection.commit, psycopg.Connection.rollback

        def step_of_execute(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
            return self._step(cursor.connection, str(query), lambda: execute(cursor, query, *args, **options))

        def step_of_commit(connection: Any) -> None:
            self._step(connection, "COMMIT", lambda: commit(connection))

        def step_of_rollback(connection: Any) -> None:
            self._step(connection, "ROLLBACK", lambda: rollback(connection))

        psycopg.Cursor.execute = step_of_execute  # type: ignore[method-assign]
        psycopg.Connection.commit = step_of_commit  # type: ignore[method-assign]
        psycopg.Connection.rollback = step_of_rollback  # type: ignore[method-assign]

    def _step(self, connection: Any, query: str, send: Callable[[], Any]) -> Any:
        idle = connection.info.transaction_status == TransactionStatus.IDLE
        nothing_sent = query in {"COMMIT", "ROLLBACK"} and idle
        if not self._counting or nothing_sent or threading.current_thread().name.startswith(BESIDE):
            return send()
        with self._turn:
            number = len(self.sent)
            self.sent.append(f"{connection.info.port} {query}")
            fault = self.fault
            if fault is None or not self._is_meant(fault, number, query):
                return send()
            self.fault = None
            if fault.when == "before":
                self._act(fault, connection)
                return send()
            try:
                answer = send()
            finally:
                self._act(fault, connection)
            if "cut" in fault.acts:
                # Fails as the statement itself would have.
                self._execute(connection.cursor(), "SELECT")
            return answer

    @staticmethod
    def _is_meant(fault: Fault, number: int, query: str) -> bool:
        return number == fault.at if isinstance(fault.at, int) else fault.at in query

    @staticmethod
    def _act(fault: Fault, connection: Any) -> None:
        for act in fault.acts:
            if act == "cut":
                with socket.socket(fileno=os.dup(connection.fileno())) as line:
                    line.shutdown(socket.SHUT_RDWR)
            else:
                os.kill(os.getpid(), {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}[act])

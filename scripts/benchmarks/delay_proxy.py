"""
Forward local TCP ports to others, and keep each message for a while on its way: a network that takes its time.

    python -m scripts.benchmarks.delay_proxy <milliseconds of a round trip> <port> ...

It prints the list of the ports that lead there slowly as JSON, and runs until its standard input ends. It is a process
of its own, so that it takes no turns with the program that is measured, and it does little enough to be no part of
that: half of a round trip is waited each way, so that all messages leave in the order in which they came.
"""

from __future__ import annotations

import gc
import json
import select
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from scripts.free_ports import HOST

ROOT = Path(__file__).resolve().parent.parent.parent
SIZE = 1 << 16


@contextmanager
def behind(ports: Iterable[int], milliseconds: float) -> Iterator[list[int]]:
    """Yield, for each port, another one that leads there by round trips of so many milliseconds."""
    command = [sys.executable, "-m", "scripts.benchmarks.delay_proxy", str(milliseconds), *map(str, ports)]
    # Leaving the block closes its standard input, and waits.
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())


class Proxy:
    """The ports, the connections through them, and what is on its way."""

    def __init__(self, seconds: float, ports: Iterable[int]) -> None:
        self._seconds = seconds
        self._servers = {socket.create_server((HOST, 0), backlog=64): port for port in ports}
        #: Each end of a connection, and the other one.
        self._ends: dict[socket.socket, socket.socket] = {}
        #: When something leaves, where, and what; nothing at all ends a connection.
        self._held: deque[tuple[float, socket.socket, bytes]] = deque()

    @property
    def ports(self) -> list[int]:
        """Return the ports to connect to."""
        return [int(server.getsockname()[1]) for server in self._servers]

    def run(self) -> None:
        """Forward until the standard input ends."""
        # poll() and epoll() know whole milliseconds only.
        while sys.stdin not in (ready := select.select(self._watched(), (), (), self._time_left())[0]):
            for each in ready:
                if each in self._servers:
                    self._accept(each)
                else:
                    self._hold(each)
            while self._held and self._held[0][0] <= time.perf_counter():
                self._pass_on()

    def _watched(self) -> list[Any]:
        return [sys.stdin, *self._servers, *self._ends]

    def _time_left(self) -> float | None:
        return max(0.0, self._held[0][0] - time.perf_counter()) if self._held else None

    def _accept(self, server: socket.socket) -> None:
        entrance, _ = server.accept()
        exit_ = socket.create_connection((HOST, self._servers[server]))
        for end, other in ((entrance, exit_), (exit_, entrance)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end] = other

    def _hold(self, end: socket.socket) -> None:
        data = b""
        with suppress(ConnectionError):
            data = end.recv(SIZE)
        self._held.append((time.perf_counter() + self._seconds, self._ends[end], data))
        if not data:
            del self._ends[end]

    def _pass_on(self) -> None:
        _, end, data = self._held.popleft()
        with suppress(OSError):
            if data:
                end.sendall(data)
            else:
                # It is closed when nothing refers to it any more.
                end.shutdown(socket.SHUT_WR)


def main(arguments: list[str]) -> None:
    gc.disable()
    proxy = Proxy(float(arguments[0]) / 2000, map(int, arguments[1:]))
    print(json.dumps(proxy.ports), flush=True)
    proxy.run()


if __name__ == "__main__":
    main(sys.argv[1:])

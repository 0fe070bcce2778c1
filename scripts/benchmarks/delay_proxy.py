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
        #: What is listened at, and where it leads to; each end of a connection, and the other one. By their numbers.
        self._servers: dict[int, tuple[socket.socket, int]] = {}
        self._ends: dict[int, tuple[socket.socket, socket.socket]] = {}
        self._epoll = select.epoll()
        self._epoll.register(sys.stdin, select.EPOLLIN)
        for port in ports:
            server = socket.create_server((HOST, 0), backlog=64)
            self._servers[server.fileno()] = server, port
            self._epoll.register(server, select.EPOLLIN)
        #: When something leaves, where, and what; nothing at all ends a connection.
        self._held: deque[tuple[float, socket.socket, bytes]] = deque()

    @property
    def ports(self) -> list[int]:
        """Return the ports to connect to."""
        return [int(server.getsockname()[1]) for server, _ in self._servers.values()]

    def run(self) -> None:
        """Forward until the standard input ends."""
        stdin, watched = sys.stdin.fileno(), [self._epoll]
        while True:
            # epoll() knows whole milliseconds only, and select() would look at a hundred sockets each time.
            select.select(watched, (), (), self._time_left())
            for number, _ in self._epoll.poll(0):
                if number == stdin:
                    return
                if number in self._servers:
                    self._accept(*self._servers[number])
                else:
                    self._hold(*self._ends[number])
            while self._held and self._held[0][0] <= time.perf_counter():
                self._pass_on()

    def _time_left(self) -> float | None:
        return max(0.0, self._held[0][0] - time.perf_counter()) if self._held else None

    def _accept(self, server: socket.socket, port: int) -> None:
        entrance, _ = server.accept()
        exit_ = socket.create_connection((HOST, port))
        for end, other in ((entrance, exit_), (exit_, entrance)):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ends[end.fileno()] = end, other
            self._epoll.register(end, select.EPOLLIN)

    def _hold(self, end: socket.socket, other: socket.socket) -> None:
        data = b""
        with suppress(ConnectionError):
            data = end.recv(SIZE)
        self._held.append((time.perf_counter() + self._seconds, other, data))
        if not data:
            self._epoll.unregister(end)
            del self._ends[end.fileno()]

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

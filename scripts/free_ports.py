"""Find TCP ports of this machine that a server can listen on."""

from __future__ import annotations

import secrets
import socket

HOST = "127.0.0.1"
# Below the range from which client connections take their own ports, so that none of them sits on a stopped server's.
PORTS = range(20_000, 32_000)


def free_port(taken: set[int]) -> int:
    """Return a TCP port on 127.0.0.1 that nothing listens on and that is not in ``taken``."""
    while True:
        port = secrets.choice(PORTS)
        if port not in taken and is_free(port):
            return port


def is_free(port: int) -> bool:
    """Return whether a server could listen on ``port`` of 127.0.0.1."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True

"""
What `migrate_all` says at its end: what the servers of the shards should have in common and have not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import Error, connections

from sharding.direct_connection import direct_connection
from sharding.errors import PooledConnection
from sharding.operations.servers import Server, differences, server_of


def server_warnings(aliases: Sequence[str]) -> Iterator[str]:
    """Yield a line for each difference between databases; those that do not answer are left out."""
    # In a thread of its own, whose connections are closed afterwards.
    with ThreadPoolExecutor(1, "compare") as pool:
        found = {alias: pool.submit(_server, alias).result() for alias in aliases}
    for each in differences({alias: server for alias, server in found.items() if server is not None}):
        yield f"Warning: {each.message} {each.hint}"


def _server(alias: str) -> Server | None:
    try:
        with direct_connection(alias) as connection:
            return server_of(connection)
    except (Error, PooledConnection):
        return None
    finally:
        connections.close_all()

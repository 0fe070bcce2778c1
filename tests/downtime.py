"""
A shard that is down: for the tests of what a cluster does without one.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connections

from tests import servers


@contextmanager
def down(alias: str) -> Iterator[None]:
    """Let nobody connect to a shard inside."""
    connection = connections[alias]
    settings = connection.settings_dict
    kept = {key: settings[key] for key in ("PORT", "NAME", "HOST")}
    connection.close()
    raw, connection.connection = connection.connection, None
    settings.update(PORT="1", HOST="127.0.0.1")
    if servers.engine == "sqlite":
        settings["NAME"] = "/nonexistent/folder/file"
    try:
        yield
    finally:
        settings.update(kept)
        connection.connection = raw

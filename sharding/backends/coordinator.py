"""
Who speaks: the name under which one thread's connections are known to every server of the cluster.

A door and the shard connections of its thread work for one atomic block at a time, so one name identifies the block in
`pg_stat_activity`, in `pg_locks`, and in the gids of its prepared transactions.
"""

from __future__ import annotations

import os
import secrets
from itertools import count


class Coordinator:
    """The name of one door, unique over all processes of a cluster, and the numbers of its commits."""

    __slots__ = ("_name", "_numbers", "_process")

    def __init__(self) -> None:
        self._renew()

    def _renew(self) -> None:
        self._process = os.getpid()
        self._name = secrets.token_hex(8)
        self._numbers = count(1)

    @property
    def name(self) -> str:
        """Return 16 hexadecimal digits; a forked process has others than its parent."""
        if self._process != os.getpid():
            self._renew()
        return self._name

    def next_transaction(self) -> str:
        """Return the id of the next transaction over several databases: ``<name>.<number>``."""
        return f"{self.name}.{next(self._numbers)}"

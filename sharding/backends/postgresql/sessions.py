"""
What a session on PostgreSQL says and allows: whose block it works for, and how long it waits for a lock.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

from psycopg import sql

from sharding.backends.coordinator import Coordinator
from sharding.backends.session_names import session_name


class NamedSessions:
    """
    Mixin of the PostgreSQL wrapper: sessions carry the name of their thread's door from the start.

    Those of a psycopg pool are used by many threads, and get it inside a block over several databases only.
    """

    settings_dict: dict[str, Any]
    coordinator: Coordinator
    connection: Any
    door: Any
    wrap_database_errors: Any
    spans_databases: bool

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._owner = threading.get_ident()
        #: Seconds that a new connection may take, where somebody is in a hurry.
        self.connect_within: float | None = None

    def get_connection_params(self) -> dict[str, Any]:
        params: dict[str, Any] = super().get_connection_params()  # type: ignore[misc]
        if not self.settings_dict["OPTIONS"].get("pool"):
            own = params.get("application_name") or os.environ.get("PGAPPNAME")
            own = own or params.get("fallback_application_name") or ""
            params["application_name"] = session_name(own, self._coordinator().name)
            if self.connect_within is not None:
                # In whole seconds, of which the driver takes two at least.
                seconds = max(1, math.ceil(self.connect_within))
                params["connect_timeout"] = min(seconds, int(params.get("connect_timeout") or seconds))
        return params

    def settle_name(self) -> None:
        """Let a connection that another thread opens have the name that this thread's would have."""
        self._coordinator()

    def _coordinator(self) -> Coordinator:
        if threading.get_ident() == self._owner:
            # A door that is not ours has no name: system checks refuse it, and must be able to run.
            self.coordinator = getattr(self.door, "coordinator", self.coordinator)
        # A thread that borrows this wrapper has another door, which knows nothing of the block.
        return self.coordinator

    def join_several(self, lock_timeout: float | None) -> None:
        """
        Tell the server that the open transaction is a part of a block over several databases.

        The session is given the door's name, if it does not have it, and ``lock_timeout`` seconds, unless it has a
        timeout of its own; both until the transaction ends.
        """
        self.spans_databases = True
        limit_waiting(self, lock_timeout, *self._renaming())

    def _renaming(self) -> list[str]:
        # The driver is told of every change of the name, also by a pooler.
        shown = self.connection.info.parameter_status("application_name") or ""
        wanted = session_name(shown, self._coordinator().name)
        return [] if shown == wanted else [f"SET LOCAL application_name = {sql.quote(wanted)}"]


def limit_waiting(connection: Any, lock_timeout: float | None, *more: str) -> None:
    """Give the open transaction of any PostgreSQL wrapper ``lock_timeout`` seconds, unless it has a timeout already."""
    statements = [*_lock_timeout(lock_timeout), *more]
    if not statements:
        return
    raw = connection.connection
    # SHOW and SET take no snapshot, so that SET TRANSACTION may still follow. All go as one message.
    with connection.wrap_database_errors:
        answer = raw.execute("; ".join(statements), prepare=False)
        own = answer.fetchone()[0] if lock_timeout is not None else "0"
        if own != "0":
            raw.execute(f"SET LOCAL lock_timeout = '{own}'", prepare=False)


def _lock_timeout(seconds: float | None) -> list[str]:
    if seconds is None:
        return []
    return ["SHOW lock_timeout", f"SET LOCAL lock_timeout = '{round(seconds * 1000)}ms'"]

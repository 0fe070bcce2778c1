"""
Statements that wait: one that runs for long may stand before a lock that a crashed block has left behind.

The locks of a prepared transaction stay until somebody finishes it, so that a statement could wait for ever. What this
process has asked of its shards is noted, and the resolver sees to a shard that does not answer.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sharding import cluster_map
from sharding.commits import recovery, resolver, sessions

logger = logging.getLogger("sharding")

#: Seconds after which a statement may be waiting; the next look at it is after twice as long, and so on.
PATIENCE = 2.0


@dataclass(slots=True)
class Running:
    """A statement that a shard has not answered yet."""

    alias: str
    since: float
    look_after: float = PATIENCE


#: By thread and shard: each of them waits for one statement of a shard at most.
_running: dict[tuple[int, str], Running] = {}


def watch(connection: Any) -> None:
    """Keep account of the statements of a connection to a database where transactions of ours may be prepared."""
    if _note not in connection.execute_wrappers:
        connection.execute_wrappers.append(_note)


def _note(execute: Callable[..., Any], sql: str, params: Any, many: bool, context: dict[str, Any]) -> Any:
    """Keep account of a statement while it runs: an execute wrapper."""
    alias = context["connection"].alias
    place = threading.get_ident(), alias
    _running[place] = Running(alias, time.monotonic())
    try:
        return execute(sql, params, many, context)
    finally:
        _running.pop(place, None)


def overdue(now: float) -> set[str]:
    """Return the shards with a statement that has run for long, each statement at ever longer intervals."""
    found = set()
    for each in list(_running.values()):
        if now - each.since >= each.look_after:
            each.look_after *= 2
            found.add(each.alias)
    return found


def look(alias: str) -> None:
    """Finish the transactions in doubt of one shard, if it has any."""
    cluster = cluster_map.uuid()
    if cluster is None:
        return
    with sessions.session(alias) as cursor:
        if not resolver.in_doubt(cursor, alias, cluster):
            return
    done = recovery.resolve_now(only=[alias])
    for each in (*done.committed, *done.rolled_back):
        logger.warning("A statement waited for %s on %s, which a crash had left; it is finished.", each.gid, alias)


os.register_at_fork(after_in_child=_running.clear)

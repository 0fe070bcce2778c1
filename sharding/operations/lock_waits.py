"""
Asking every server who waits for whom, and ending the youngest block of each deadlock.

The servers are asked one after the other, so that what they say is no picture of one instant. Only waits that two looks
find are believed: all of them lasted from the end of the first look to the beginning of the second.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import Error, connections

from sharding import env
from sharding.commits import sessions
from sharding.direct_connection import direct_connection
from sharding.operations.status import reason
from sharding.operations.wait_graph import Deadlock, Graph, Prepared, Reading, Row, Wait, graph

#: Seconds between the two looks: PostgreSQL itself takes one (deadlock_timeout) to find what it can find.
PAUSE = 1.0

ROWS = """
    SELECT waiting.pid, waiting.application_name, {waiting.xact_start}, {waiting.query_start}, waiting.query,
           extract(epoch FROM clock_timestamp() - waiting.query_start)::float8,
           blocking.pid, holder.application_name, {holder.xact_start}
    FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted) AS stuck
    JOIN pg_stat_activity AS waiting ON waiting.pid = stuck.pid AND waiting.datname = current_database()
    CROSS JOIN LATERAL (SELECT DISTINCT unnest(pg_blocking_pids(stuck.pid))) AS blocking (pid)
    LEFT JOIN pg_stat_activity AS holder ON holder.pid = blocking.pid
    ORDER BY waiting.pid, blocking.pid
"""
# A prepared transaction goes on under the virtual id it had before, and has the lock on its own id.
PREPARED = """
    SELECT DISTINCT waiting.pid, prepared.gid, {prepared.prepared}, waiting.mode, holder.mode
    FROM pg_locks AS waiting
    JOIN pg_locks AS holder ON holder.granted AND holder.pid IS NULL AND
        (holder.locktype, holder.database, holder.relation, holder.page, holder.tuple, holder.virtualxid,
         holder.transactionid, holder.classid, holder.objid, holder.objsubid)
        IS NOT DISTINCT FROM
        (waiting.locktype, waiting.database, waiting.relation, waiting.page, waiting.tuple, waiting.virtualxid,
         waiting.transactionid, waiting.classid, waiting.objid, waiting.objsubid)
    JOIN pg_locks AS own ON own.granted AND own.pid IS NULL AND own.locktype = 'transactionid' AND
        own.virtualtransaction = holder.virtualtransaction
    JOIN pg_prepared_xacts AS prepared ON prepared.transaction = own.transactionid
    WHERE NOT waiting.granted AND waiting.pid = ANY(%s)
    ORDER BY waiting.pid, prepared.gid
"""
OPEN = """
    SELECT application_name, {xact_start} FROM pg_stat_activity
    WHERE datname = current_database() AND xact_start IS NOT NULL AND application_name LIKE '%shardkit:%'
"""
# What was seen must still be true: the same statement, waiting for the same session.
CANCEL = """
    SELECT pg_cancel_backend(pid) FROM pg_stat_activity
    WHERE pid = %s AND {query_start} = %s AND %s = ANY(pg_blocking_pids(pid))
"""


@dataclass(frozen=True, slots=True)
class Look:
    """What was found: the waits of the last look, and the deadlocks among those that lasted."""

    waits: tuple[Wait, ...]
    deadlocks: tuple[Deadlock, ...]
    #: The blocks that were ended.
    ended: tuple[str, ...]
    #: {alias: why} of databases that could not be asked, or would not cancel a statement.
    failures: Mapping[str, str]

    @property
    def is_sound(self) -> bool:
        """Whether all answered, and no deadlock is left."""
        return not self.failures and {each.victim for each in self.deadlocks} <= set(self.ended)


def look(*, end: bool = False, pause: float = PAUSE) -> Look:
    """
    Ask every PostgreSQL database who waits for whom; with ``end``, end the youngest block of each deadlock.

    Raises:
        PooledConnection: a pooler stands before a database, and its own address is not known.
    """
    with _servers() as (servers, failures):
        first = _graph(servers, failures)
        if not first.deadlocks():
            return Look(first.waits, (), (), failures)
        time.sleep(pause)
        second = _graph(servers, failures)
        lasting = first.lasting(second)
        deadlocks = tuple(lasting.deadlocks())
        ended = tuple(each.victim for each in deadlocks if end and _end(each.victim, lasting, servers, failures))
        return Look(second.waits, deadlocks, ended, failures)


@contextmanager
def _servers() -> Iterator[tuple[dict[str, Any], dict[str, str]]]:
    """Yield {alias: open connection} and {alias: why there is none}, each database once."""
    servers: dict[str, Any] = {}
    failures: dict[str, str] = {}
    with ExitStack() as stack:
        for alias in _databases():
            try:
                servers[alias] = stack.enter_context(direct_connection(alias))
            except Error as error:
                failures[alias] = reason(error)
        yield servers, failures


def _databases() -> list[str]:
    found: dict[tuple[Any, ...], str] = {}
    for alias in sessions.aliases():
        settings = env.direct(connections.settings[alias])
        found.setdefault(tuple(settings[name] for name in ("HOST", "PORT", "NAME")), alias)
    return list(found.values())


def _graph(servers: Mapping[str, Any], failures: dict[str, str]) -> Graph:
    readings = []
    for alias, connection in servers.items():
        try:
            readings.append(_reading(alias, connection))
        except Error as error:
            failures[alias] = reason(error)
    return graph(readings)


def _reading(alias: str, connection: Any) -> Reading:
    with connection.cursor() as cursor:
        cursor.execute(_with_times(OPEN))
        begun = cursor.fetchall()
        cursor.execute(_with_times(ROWS))
        rows = [Row(*values) for values in cursor.fetchall()]
        prepared = []
        behind = sorted({row.pid for row in rows if not row.blocking_pid})
        if behind:
            cursor.execute(_with_times(PREPARED), [behind])
            prepared = [
                Prepared(pid, gid, time) for pid, gid, time, wanted, held in cursor.fetchall() if conflict(wanted, held)
            ]
    return Reading(alias, rows, prepared, begun)


def _with_times(sql: str) -> str:
    """Write the columns in braces as microseconds, which any time zone and setting of Django leaves alone."""
    return sql.replace("{", "(extract(epoch FROM ").replace("}", ") * 1000000)::bigint")


#: The modes of table locks by weight, and the weakest mode that each of them conflicts with.
MODES = {
    "AccessShareLock": "AccessExclusiveLock",
    "RowShareLock": "ExclusiveLock",
    "RowExclusiveLock": "ShareLock",
    "ShareUpdateExclusiveLock": "ShareUpdateExclusiveLock",
    "ShareLock": "RowExclusiveLock",
    "ShareRowExclusiveLock": "RowExclusiveLock",
    "ExclusiveLock": "RowShareLock",
    "AccessExclusiveLock": "AccessShareLock",
}


def conflict(wanted: str, held: str) -> bool:
    """Return whether a lock stands in the way of another one."""
    if wanted == held == "ShareLock":
        return False
    weights = list(MODES)
    return weights.index(held) >= weights.index(MODES[wanted])


def _end(victim: str, lasting: Graph, servers: Mapping[str, Any], failures: dict[str, str]) -> bool:
    """Cancel the statements with which a block waits, and return whether one still did."""
    canceled = False
    for wait in lasting.waits:
        alias = wait.waiting.alias
        if wait.waiting.block == victim:
            try:
                canceled |= _cancel(wait, servers[alias])
            except Error as error:
                failures[alias] = reason(error)
    return canceled


def _cancel(wait: Wait, connection: Any) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(_with_times(CANCEL), [wait.waiting.pid, wait.since, wait.blocking.pid or 0])
        return any(canceled for (canceled,) in cursor.fetchall())

"""
Who waits for whom over all servers, and which of them wait in a circle. No database is asked here.

The blocks are the nodes: all sessions that carry the name of one door are one block, whatever server they are on. A
session of somebody else is a node by itself, and so is a prepared transaction whose block has ended.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from sharding.backends.session_names import door_of, door_of_gid

#: Microseconds since 1970, by the clock of one server.
Time = int

_TARGET = re.compile(r'\b(?:FROM|UPDATE|INTO|TABLE)\s+(?:ONLY\s+)?(["\w.]+)', re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of what a server says: a session that waits, and one that it waits for."""

    pid: int
    name: str | None
    started: Time | None
    since: Time | None
    query: str | None
    waited: float | None
    #: 0 for a prepared transaction, which has no session.
    blocking_pid: int
    blocking_name: str | None
    blocking_started: Time | None


@dataclass(frozen=True, slots=True)
class Prepared:
    """A prepared transaction that holds what a session waits for."""

    pid: int
    gid: str
    prepared: Time


@dataclass(frozen=True, slots=True)
class Reading:
    """What one server said."""

    alias: str
    rows: Sequence[Row] = ()
    prepared: Sequence[Prepared] = ()
    #: Names of sessions with an open transaction, and when it began.
    open: Sequence[tuple[str, Time]] = ()


@dataclass(frozen=True, slots=True)
class Session:
    """One side of a wait, and the block that it belongs to."""

    alias: str
    pid: int | None
    block: str
    #: A block of this cluster, named after its door.
    is_ours: bool
    started: Time | None


@dataclass(frozen=True, slots=True)
class Wait:
    """One session waits for another one. Two readings of the same wait are equal."""

    waiting: Session
    blocking: Session
    since: Time | None
    statement: str = field(compare=False)
    waited: float = field(compare=False)


@dataclass(frozen=True, slots=True)
class Deadlock:
    """Waits in a circle, each for the next one's block, and the youngest of our blocks in it."""

    waits: tuple[Wait, ...]
    victim: str

    @property
    def blocks(self) -> tuple[str, ...]:
        return tuple(wait.waiting.block for wait in self.waits)


@dataclass(frozen=True, slots=True)
class Graph:
    """All waits of one look at the servers, and when each of our blocks began."""

    waits: tuple[Wait, ...]
    started: Mapping[str, Time]

    def lasting(self, later: Graph) -> Graph:
        """Return what is there in the later graph too: waits that went on all the time between the two looks."""
        again = set(later.waits)
        return Graph(tuple(wait for wait in self.waits if wait in again), self.started)

    def deadlocks(self) -> list[Deadlock]:
        """Return the circles that no server can see, until none is left once their victims have ended."""
        left = list(self.waits)
        found = []
        while (circle := _shortest_circle(left)) is not None:
            victim = self._youngest(circle)
            if victim is None or _is_on_one_server(circle):
                # PostgreSQL ends it by itself.
                left.remove(circle[0])
                continue
            found.append(Deadlock(circle, victim))
            left = [wait for wait in left if wait.waiting.block != victim]
        return found

    def _youngest(self, circle: Sequence[Wait]) -> str | None:
        ours = {wait.waiting.block for wait in circle if wait.waiting.is_ours}
        # The name decides between two of the same instant, so that every detector ends the same one.
        return max(ours, key=lambda block: (self.started.get(block, 0), block), default=None)


def graph(readings: Iterable[Reading]) -> Graph:
    """Join what the servers said."""
    readings = list(readings)
    started: dict[str, Time] = {}
    for reading in readings:
        for name, time in reading.open:
            door = door_of(name)
            if door is not None:
                started[door] = min(time, started.get(door, time))
    return Graph(tuple(wait for reading in readings for wait in _waits(reading, started)), started)


def _waits(reading: Reading, started: Mapping[str, Time]) -> Iterable[Wait]:
    holders: dict[int, list[Session]] = {}
    for each in reading.prepared:
        holders.setdefault(each.pid, []).append(_prepared(reading.alias, each, started))
    for row in reading.rows:
        waiting = _session(reading.alias, row.pid, row.name, row.started)
        blocking = [_session(reading.alias, row.blocking_pid, row.blocking_name, row.blocking_started)]
        for session in blocking if row.blocking_pid else holders.get(row.pid, ()):
            yield Wait(waiting, session, row.since, summary(row.query or ""), row.waited or 0.0)


def _session(alias: str, pid: int, name: str | None, started: Time | None) -> Session:
    door = door_of(name)
    return Session(alias, pid, door or f"pid {pid} on {alias}", door is not None, started)


def _prepared(alias: str, each: Prepared, started: Mapping[str, Time]) -> Session:
    door = door_of_gid(each.gid)
    # The block of a door that has begun since is another one. Clocks of servers differ, but less than blocks last.
    if door is not None and each.prepared >= started.get(door, each.prepared + 1):
        return Session(alias, None, door, True, each.prepared)
    return Session(alias, None, each.gid, False, each.prepared)


def _shortest_circle(waits: Sequence[Wait]) -> tuple[Wait, ...] | None:
    onwards: dict[str, list[Wait]] = {}
    for wait in waits:
        onwards.setdefault(wait.waiting.block, []).append(wait)
    circles = (_circle_through(block, onwards) for block in sorted(onwards))
    return min((circle for circle in circles if circle is not None), key=len, default=None)


def _circle_through(block: str, onwards: Mapping[str, Sequence[Wait]]) -> tuple[Wait, ...] | None:
    seen: set[str] = set()
    paths: deque[tuple[Wait, ...]] = deque((wait,) for wait in onwards[block])
    while paths:
        path = paths.popleft()
        reached = path[-1].blocking.block
        if reached == block:
            return path
        if reached not in seen:
            seen.add(reached)
            paths.extend((*path, wait) for wait in onwards.get(reached, ()))
    return None


def _is_on_one_server(circle: Sequence[Wait]) -> bool:
    """Return whether each waits for the very session that waits next: one server has the whole circle before it."""
    return all(
        (wait.blocking.alias, wait.blocking.pid) == (following.waiting.alias, following.waiting.pid)
        for wait, following in zip(circle, (*circle[1:], circle[0]), strict=True)
    )


def summary(query: str) -> str:
    """Return the verb and the table of a statement: its values are nobody's business."""
    words = query.split(None, 1)
    target = _TARGET.search(query)
    return " ".join([*(word.upper() for word in words[:1]), *([target[1].replace('"', "")] if target else [])])

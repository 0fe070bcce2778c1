"""
Statements that were sent, by a map that was read before, to a shard which has given the bucket away: they go again.

A shard refuses writes of buckets that are not its own, and statements for several shards when it shows others than the
sender's map says. That a row is not there it cannot refuse to say, so that it is asked whose the bucket is.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from functools import cache
from typing import Any

from django.db import DatabaseError, Error

from sharding import cluster_map, conf, hidden_rows
from sharding.backends import refusals
from sharding.backends.participants import is_aborted
from sharding.bucket_states import FENCE, BucketState
from sharding.errors import BucketMoved, BucketRefused, EpochChanged
from sharding.isolation import holds_a_snapshot
from sharding.routing import Buckets

#: Seconds before a statement is sent again whose bucket is moving in this instant; the pause doubles.
FIRST_PAUSE, LONGEST_PAUSE = 0.002, 0.05

# One row where there is a fence, whether it knows the bucket or not.
STATE = f"""
SELECT f.state, f.forward, f.epoch FROM sharding_identity AS i LEFT JOIN {FENCE} AS f ON f.bucket = %s
WHERE i.shown IS NOT NULL
"""


def is_possible(connection: Any, *, single: bool) -> bool:
    """
    Return whether a shard may refuse a statement because of its buckets; a cluster of one refuses none.

    Args:
        single: the statement is for one shard, which needs a fence to refuse it.
    """
    settings = conf.current()
    return connection.vendor == "postgresql" and bool(settings.shards) and (not single or settings.fence is not None)


class Begun:
    """What an atomic block of the door had begun before a statement."""

    __slots__ = ("_aliases", "_door", "_is_pending", "_needs_rollback")

    def __init__(self, door: Any) -> None:
        self._door = door
        self._aliases = frozenset(door.participants) if door.in_atomic_block else None
        self._is_pending = door.pending
        self._needs_rollback = door.needs_rollback

    def undo(self, alias: str, *, several: bool) -> bool:
        """
        Undo what the statement has begun, of which a shard has refused its part.

        Return whether nothing is left of it. Something is where the block has been on the shard before, or, if the
        statement writes on ``several`` databases, may be where it has been on any.
        """
        if self._aliases is None:
            return True
        door = self._door
        begun = [each for each in door.participants if each not in self._aliases]
        if alias not in begun or not all(door.participants[each].can_be_undone for each in begun):
            return False
        if is_aborted(door) or any(is_aborted(door.participants[each].connection) for each in self._aliases):
            # Another one has refused it, too.
            return False
        if several and (self._aliases or door.pending != self._is_pending or not self._is_pending):
            return False
        for each in begun:
            door.participants.pop(each).roll_back()
        # Django's own blocks around a statement say so of what is undone now.
        door.needs_rollback = self._needs_rollback
        return True


class Patience:
    """How long a statement is sent again."""

    def __init__(self) -> None:
        self._until = time.monotonic() + conf.current().move_wait
        self._pause = FIRST_PAUSE

    def learn(self, refusal: BucketRefused | EpochChanged) -> bool:
        """Take note of what a shard said, or wait until others have; return False when it has taken too long."""
        if time.monotonic() >= self._until:
            return False
        if isinstance(refusal, BucketMoved):
            note(refusal)
            return True
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, LONGEST_PAUSE)
        # The control database may be down: the shards themselves may be done meanwhile.
        with suppress(Error):
            cluster_map.refresh()
        hidden_rows.doubt()
        return True


def note(refusal: BucketRefused | EpochChanged) -> None:
    """Let the next block go by what a shard said."""
    if isinstance(refusal, BucketMoved):
        cluster_map.learn(refusal.bucket, refusal.forward, refusal.epoch)
    else:
        cluster_map.expire()
        hidden_rows.doubt()


def patiently(door: Any, send: Callable[[], Any], *, several: bool = False) -> Any:
    """
    Return what ``send`` returns; it routes a statement and executes it, and is called again when a bucket has moved.

    Args:
        several: it writes, or may write, on more than one database.

    Raises:
        BucketMoved, BucketFenced, EpochChanged: the block has been on the shard before, or it took too long.
    """
    patience = None
    while True:
        begun = Begun(door)
        try:
            return send()
        except (BucketRefused, EpochChanged) as refusal:
            patience = patience or Patience()
            if not begun.undo(refusal.alias, several=several) or not patience.learn(refusal):
                note(refusal)
                raise


def rerouted(compiler: Any, route: Callable[[], Any], door: Any, buckets: Buckets, *, several: bool) -> Any:
    """
    Let a compiler of the door send its statement again when a bucket has moved.

    Args:
        route: returns the compiler that a statement has by the map of the moment.
        buckets: of the rows, if they are known.
        several: it writes, or may write, on more than one database.
    """
    native: Any = type(compiler)
    compiler.__class__ = _rerouted(native)
    compiler.route, compiler.routing_door, compiler.buckets = route, door, buckets
    compiler.writes_on_several = several
    compiler.epoch = cluster_map.current().epoch
    return compiler


class Rerouted:
    """Mixin of compilers."""

    route: Callable[[], Any]
    routing_door: Any
    writes_on_several: bool
    buckets: Buckets
    #: Of the map by which it was routed.
    epoch: int
    connection: Any

    def execute_sql(self, *args: Any, **kwargs: Any) -> Any:
        return self._send_patiently("execute_sql", args, kwargs)

    def _send_patiently(self, method: str, args: Any, kwargs: Any) -> Any:
        # Whatever becomes of this object while it is executed.
        route = self.route
        [bucket] = self.buckets if self.buckets and len(self.buckets) == 1 else [None]
        again = False

        def send() -> Any:
            nonlocal again
            if again:
                # Django goes on with this very object.
                other = route()
                self.__class__, self.__dict__ = type(other), other.__dict__
            again = True
            try:
                is_something, found = _beginning(getattr(super(Rerouted, self), method)(*args, **kwargs))
            except DatabaseError as error:
                # The first rows of a server-side cursor are fetched without an execute wrapper.
                raise refusals.explained(error, self.connection.alias) or error from error.__cause__
            if bucket is not None and (not is_something or _is_doubtful(self.connection)):
                require_owner(self.connection, bucket, self.epoch)
            return found

        return patiently(self.routing_door, send, several=self.writes_on_several)


@cache
def _rerouted(native: Any) -> Any:
    def execute_returning_sql(self: Any, *args: Any, **kwargs: Any) -> Any:
        return self._send_patiently("execute_returning_sql", args, kwargs)

    # Of Django 6.
    more = {"execute_returning_sql": execute_returning_sql} if hasattr(native, "execute_returning_sql") else {}
    return type(f"Rerouted{native.__name__}", (Rerouted, native), more)


def require_owner(connection: Any, bucket: int, epoch: int) -> None:
    """
    Ask a shard whose a bucket is, and has been since the epoch of the map by which a statement was sent there.

    Raises:
        BucketMoved: it is another shard's.
        EpochChanged: it became the shard's meanwhile, or is about to, so that the statement may have seen a part of it;
            or it was the shard's, and nothing is left of it.
    """
    # The driver's connection: nobody's statements are counted, logged or refused for it.
    with connection.wrap_database_errors:
        row = connection.connection.execute(STATE, [bucket]).fetchone()
    if row is None:
        # There is no fence.
        return
    state, forward, since = row
    if state == BucketState.MOVED:
        raise refusals.moved(bucket, connection.alias, forward, state, since)
    if state in {None, BucketState.IMPORTING} or since > epoch:
        raise refusals.epoch_changed(connection.alias)


def _is_doubtful(connection: Any) -> bool:
    """Return whether rows may be those of a copy: by an old map, or as they were before the whole bucket came."""
    return cluster_map.is_old() or holds_a_snapshot(connection)


def _beginning(found: Any) -> tuple[bool, Any]:
    """Return whether a shard has found something, and what that was."""
    if isinstance(found, Iterator):
        first = next(found, None)
        return first is not None, found if first is None else _chained(first, found)
    # One row of nothing but 0 and NULL is what aggregates answer for no row.
    return any(found) if isinstance(found, tuple) else bool(found), found


def _chained(first: Any, rest: Any) -> Iterator[Any]:
    with closing(rest):
        yield first
        yield from rest

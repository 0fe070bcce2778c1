"""
The sessions of a mover: one at the shard that gives a bucket, one at the shard that gets it, and their transactions.

How they are connected is in ``connecting``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, LiteralString

import psycopg
from psycopg import sql

from sharding.bucket_states import FENCE, BucketState
from sharding.errors import Superseded
from sharding.rebalance import connecting

Cursor = psycopg.Cursor[tuple[Any, ...]]
#: One, or several that are in the hands of one attempt.
Buckets = int | Collection[int]

#: The name of a session that only looks.
INSPECTION = "shardkit-inspection"

#: How the names of all sessions of movers begin.
SESSION_NAME: Final = "shardkit-mover"
#: Stands for a bucket in the names of sessions that are no attempt's, so that none of a later attempt ends them.
NO_BUCKET: Final = -1


@dataclass(frozen=True, slots=True)
class Session:
    """A connection in autocommit, and the shard where it leads."""

    alias: str
    connection: psycopg.Connection[tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class Sessions:
    """The two ends of a move."""

    source: Session
    target: Session


@contextmanager
def open_sessions(source: str, target: str, *, buckets: Buckets, generation: int) -> Iterator[Sessions]:
    """
    Yield a mover's sessions at two shards, and close them in the end.

    Raises:
        UnknownShard: DATABASES lacks an alias.
        PooledConnection: a pooler stands between, which would hand the session to others.
        psycopg.OperationalError: a server does not answer.
    """
    with (
        open_session(source, buckets=buckets, generation=generation) as giving,
        open_session(target, buckets=buckets, generation=generation) as getting,
    ):
        yield Sessions(giving, getting)


@contextmanager
def open_session(alias: str, *, buckets: Buckets = NO_BUCKET, generation: int = 0) -> Iterator[Session]:
    """Yield one of a mover's sessions, or one that is no attempt's, and close it in the end; see open_sessions()."""
    with _opened(alias, application_name(buckets, generation)) as session:
        yield session


@contextmanager
def open_inspection(alias: str) -> Iterator[Session]:
    """Yield a session like a mover's that is nobody's, to look at a database before anything moves."""
    with _opened(alias, INSPECTION) as session:
        yield session


@contextmanager
def _opened(alias: str, name: str) -> Iterator[Session]:
    connection = connecting.connect(alias, name)
    try:
        connecting.pin(alias, connection)
        yield Session(alias, connection)
    finally:
        connection.close()


def rename(session: Session, buckets: Buckets = NO_BUCKET, generation: int = 0) -> None:
    """Let a session that is open be another attempt's, or nobody's."""
    name = application_name(buckets, generation)
    session.connection.execute("SELECT set_config('application_name', %s, false)", [name])


def application_name(buckets: Buckets, generation: int) -> str:
    """Return the name of a mover's sessions, by which the next mover of one of the buckets finds and ends them."""
    return f"{SESSION_NAME}:{','.join(map(bucket_name, _sorted(buckets)))}:{generation}"


def bucket_name(bucket: int) -> str:
    """Return how a bucket is written in the name of a session, where room is scarce: PostgreSQL cuts off the rest."""
    return f"{bucket:x}"


@contextmanager
def mover_transaction(
    session: Session, buckets: Buckets, *, generation: int, states: Collection[BucketState]
) -> Iterator[Cursor]:
    """
    Yield a cursor in a transaction of the mover's: no attempt that came after it has begun, or can before it ends.

    The fence lets such a transaction write, whatever the state. It keeps the fence's rows locked, so that they stay
    what they are.

    Raises:
        Superseded: the fence has another generation, or a bucket is in none of ``states`` here.
    """
    begin = sql.SQL("BEGIN; SELECT set_config('sharding.mover', {}, true); {}").format(
        sql.Literal(str(generation)), _held(buckets, lock=True)
    )
    with transaction(session, begin) as cursor:
        _compare(cursor, session.alias, buckets, generation, states)
        yield cursor


@contextmanager
def snapshot(
    session: Session, buckets: Buckets, *, generation: int, states: Collection[BucketState]
) -> Iterator[Cursor]:
    """
    Yield a cursor in a transaction that only reads, of which every statement sees the same instant.

    It locks nothing: what is read is of use only in a mover_transaction() at the other shard.

    Raises:
        Superseded: as mover_transaction().
    """
    begin = sql.SQL("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {}").format(_held(buckets, lock=False))
    with transaction(session, begin) as cursor:
        _compare(cursor, session.alias, buckets, generation, states)
        yield cursor


@contextmanager
def transaction(session: Session, begin: LiteralString | sql.Composed = "BEGIN") -> Iterator[Cursor]:
    """
    Yield a cursor in a transaction, which is committed in the end, or rolled back after an error.

    Args:
        begin: statements with which it begins, in one message; the cursor has what the last one has found.
    """
    with session.connection.cursor() as cursor:
        try:
            cursor.execute(begin)
            while cursor.nextset():
                pass
            yield cursor
            cursor.execute("COMMIT")
        except BaseException:
            _roll_back(session, cursor)
            raise


def _roll_back(session: Session, cursor: Cursor) -> None:
    if session.connection.info.transaction_status == psycopg.pq.TransactionStatus.ACTIVE:
        # It was interrupted within a COPY. The server rolls back what it was told of.
        session.connection.close()
        return
    try:
        cursor.execute("ROLLBACK")
    except psycopg.OperationalError:
        # The error that led here says more.
        session.connection.close()


def _held(buckets: Buckets, *, lock: bool) -> sql.Composed:
    return sql.SQL(
        "SELECT bucket, state, generation FROM {} WHERE bucket = ANY({}::smallint[]) ORDER BY bucket {}"
    ).format(sql.Identifier(FENCE), sql.Literal(_sorted(buckets)), sql.SQL("FOR SHARE" if lock else ""))


def _sorted(buckets: Buckets) -> list[int]:
    return sorted([buckets] if isinstance(buckets, int) else buckets)


def _compare(
    cursor: Cursor,
    alias: str,
    buckets: Buckets,
    generation: int,
    states: Collection[BucketState],
) -> None:
    wanted = _sorted(buckets)
    found = {bucket: (state, held) for bucket, state, held in cursor.fetchall()}
    for bucket in wanted:
        state, held = found.get(bucket, (None, None))
        if held != generation:
            raise Superseded(
                f"Bucket {bucket} on {alias!r} is in the hands of "
                f"{'nobody' if held is None else f'attempt {held}'}, and no longer of attempt {generation}. "
                f"Leave the move to whoever has it.",
                bucket=bucket,
                alias=alias,
                generation=generation,
                found=held,
                state=state,
            )
        if state not in states:
            raise Superseded(
                f"Bucket {bucket} on {alias!r} is {state}, where attempt {generation} expected "
                f"{' or '.join(sorted(states))}. Begin again from what the move's row says.",
                bucket=bucket,
                alias=alias,
                generation=generation,
                found=held,
                state=state,
            )

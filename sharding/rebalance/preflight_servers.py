"""
Before the first move: what one server is, and what goes on there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from sharding import stored_cluster
from sharding.commits.gids import PREFIX
from sharding.rebalance.finding import Finding, error, listed, warning
from sharding.rebalance.sessions import Session
from sharding.stored_cluster import Identity

#: Seconds: prepared transactions that are older were left by somebody; open ones delay barriers.
LEFT_OPEN = 60.0
LONG = 10.0
#: Seconds between two clocks.
CLOCKS_DIFFER = 1.0
CLOCKS_WRONG = 60.0
#: Sessions of a mover, and of one that takes over; and those that are left for the application.
NEEDED = 4
COMFORTABLE = 10

IDENTITY = "SELECT cluster, shard, epoch FROM sharding_identity"
PREPARED = """
    SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts
    WHERE database = current_database() AND clock_timestamp() - prepared > make_interval(secs => %s)
    ORDER BY prepared, gid
"""
# Of sessions of other roles, an ordinary one does not see since when.
OPEN = """
    SELECT pid, application_name, extract(epoch FROM clock_timestamp() - xact_start)::float8 FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
      AND clock_timestamp() - xact_start > make_interval(secs => %s)
    ORDER BY xact_start, pid
"""
# -1 is no limit of a role or a database.
FREE = """
    WITH sessions AS (SELECT datname, usename FROM pg_stat_activity WHERE backend_type = 'client backend')
    SELECT least(
        current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
            - (SELECT count(*) FROM sessions),
        (SELECT CASE WHEN rolconnlimit < 0 THEN 1000000 ELSE rolconnlimit END FROM pg_roles
         WHERE rolname = current_user)
            - (SELECT count(*) FROM sessions WHERE usename = current_user),
        (SELECT CASE WHEN datconnlimit < 0 THEN 1000000 ELSE datconnlimit END FROM pg_database
         WHERE datname = current_database())
            - (SELECT count(*) FROM sessions WHERE datname = current_database()))::int
"""


def found(session: Session) -> Iterator[Finding]:
    """Yield what hinders moves from or to one shard."""
    yield from of_identity(session)
    yield from of_recovery(session)
    yield from of_prepared_transactions(session)
    yield from of_open_transactions(session)
    yield from of_connections(session)


def of_identity(session: Session) -> Iterator[Finding]:
    alias, row = session.alias, None
    if session.connection.execute("SELECT to_regclass('sharding_identity') IS NOT NULL").fetchall() == [(True,)]:
        row = session.connection.execute(IDENTITY).fetchone()
    if row is None:
        yield error(
            "identity",
            f"The database of {alias!r} does not say which shard it is. Run `manage.py migrate_all` and "
            f"`manage.py shards init`.",
        )
        return
    message = stored_cluster.contradiction(alias, Identity(*row), stored_cluster.cluster())
    if message is not None:
        yield error("identity", f"{message} Correct the URL of {alias!r}, or restore what was lost.")


def of_recovery(session: Session) -> Iterator[Finding]:
    ((standby, read_only),) = session.connection.execute(
        "SELECT pg_is_in_recovery(), current_setting('transaction_read_only') = 'on'"
    ).fetchall()
    if standby:
        yield error(
            "writable",
            f"The server of {session.alias!r} is a standby, which takes no writes. Correct its URL, or promote it.",
        )
    elif read_only:
        yield error(
            "writable",
            f"Transactions on {session.alias!r} are read-only (default_transaction_read_only is on). Switch that off "
            f"for this role and database.",
        )


def of_prepared_transactions(session: Session) -> Iterator[Finding]:
    rows = session.connection.execute(PREPARED, [LEFT_OPEN]).fetchall()
    ours = [(gid, age) for gid, age in rows if gid.startswith(f"{PREFIX}:")]
    others = [(gid, age) for gid, age in rows if not gid.startswith(f"{PREFIX}:")]
    if ours:
        yield error(
            "prepared",
            f"{_prepared(ours, session.alias)}, and a move waits for it as long as it stands. Run "
            f"`manage.py shards recover`.",
        )
    for gid, age in others:
        yield error(
            "prepared",
            f"The transaction {gid!r}, which is none of this toolkit's, has been prepared on {session.alias!r} for "
            f"{age:,.0f} s, and a move waits for it as long as it stands. Commit it or roll it back.",
        )


def _prepared(rows: Sequence[tuple[str, float]], alias: str) -> str:
    age = f"{rows[0][1]:,.0f} s"
    if len(rows) == 1:
        return f"A transaction over several databases has been in doubt on {alias!r} for {age}"
    return f"{len(rows):,} transactions over several databases are in doubt on {alias!r}, the oldest for {age}"


def of_open_transactions(session: Session) -> Iterator[Finding]:
    rows = session.connection.execute(OPEN, [LONG]).fetchall()
    if rows:
        each = [f"{pid} ({name or 'without a name'}, {age:,.0f} s)" for pid, name, age in rows]
        yield warning(
            "transactions",
            f"Transactions have been open on {session.alias!r} for more than {LONG:g} s: {listed(each)}. A bucket that "
            f"one of them has written changes hands only when it ends. End them, or expect moves to wait.",
        )


def of_connections(session: Session) -> Iterator[Finding]:
    ((free,),) = session.connection.execute(FREE).fetchall()
    remedy = "Raise max_connections, or the limit of the role or the database, or let the application open fewer."
    if free < NEEDED:
        yield error(
            "connections", f"{session.alias!r} takes {free} more connections, and moves need {NEEDED}. {remedy}"
        )
    elif free < COMFORTABLE:
        yield warning(
            "connections",
            f"{session.alias!r} takes {free} more connections, of which moves need {NEEDED}; the application may find "
            f"none. {remedy}",
        )


def of_clocks(sessions: Sequence[Session]) -> Iterator[Finding]:
    """Yield the shards whose clock is not that of the first of the sessions: a window ends by one clock or another."""
    offsets = {session.alias: _offset(session) for session in sessions}
    control, *shards = offsets
    for alias in shards:
        apart = abs(offsets[alias] - offsets[control])
        if apart <= CLOCKS_DIFFER:
            continue
        remedy = "Let both synchronise with the same source of time (NTP)."
        message = f"The clock of {alias!r} is {apart:,.1f} s away from that of the control database. {remedy}"
        yield error("clocks", message) if apart > CLOCKS_WRONG else warning("clocks", message)


def _offset(session: Session) -> float:
    """Return by how much a server's clock is ahead of this process's: the best of some answers, the quickest one."""
    answers = []
    for _ in range(3):
        before = time.monotonic()
        ((told,),) = session.connection.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchall()
        took = time.monotonic() - before
        answers.append((took, told - (time.time() - took / 2)))
    return float(min(answers)[1])

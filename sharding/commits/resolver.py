"""
The resolver: finish the transactions that a crash left prepared.

A transaction is committed if the control database says so. One that nobody has decided is presumed aborted once it is
old enough, and a tombstone is written first, so that its coordinator cannot decide otherwise afterwards. Any number of
resolvers may run at once, and each may be killed anywhere: every step is repeated by the next one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS, Error

from sharding.commits import decisions
from sharding.commits.gids import PREFIX, Gid
from sharding.commits.sessions import is_being_finished, is_finished, session

#: Seconds that a coordinator has for carrying out its own decision.
GRACE = 1.0


@dataclass(frozen=True, slots=True)
class InDoubt:
    """A prepared transaction of ours on one database, and its age in seconds by that database's clock."""

    gid: Gid
    #: Where it was found: a restored server may be known by another alias than the gid's.
    alias: str
    age: float


@dataclass(slots=True)
class Resolution:
    """What one pass of the resolver did."""

    committed: list[InDoubt] = field(default_factory=list)
    rolled_back: list[InDoubt] = field(default_factory=list)
    #: Too young to be presumed dead, or in somebody else's hands.
    left: list[InDoubt] = field(default_factory=list)
    #: {alias: error} of databases, and of transactions on them, that could not be dealt with.
    failures: dict[str, Exception] = field(default_factory=dict)

    @property
    def is_complete(self) -> bool:
        return not self.left and not self.failures


def in_doubt(cursor: Any, alias: str, cluster: UUID) -> list[InDoubt]:
    """Return our prepared transactions in the database of ``cursor``, the oldest first."""
    cursor.execute(
        "SELECT gid, extract(epoch FROM clock_timestamp() - prepared)::float8 FROM pg_prepared_xacts "
        "WHERE database = current_database() AND gid LIKE %s ORDER BY prepared, gid",
        [f"{PREFIX}:{cluster.hex}:%"],
    )
    found = [(Gid.parse(text, cluster), age) for text, age in cursor.fetchall()]
    return [InDoubt(gid, alias, age) for gid, age in found if gid is not None]


def resolve(aliases: Sequence[str], cluster: UUID, *, min_age: float) -> Resolution:
    """
    Finish what is decided on ``aliases``, and abort what is undecided for ``min_age`` seconds.

    Raises:
        DatabaseError: the control database cannot be asked; without it nothing can be decided.
    """
    done = Resolution()
    with session(DEFAULT_DB_ALIAS) as control:
        # Read first: a decision may be forgotten only if it is older than the look at every database.
        committed = decisions.committed(control)
        for alias in aliases:
            try:
                _resolve_one(alias, cluster, control, min_age, done)
            except Error as error:
                done.failures.setdefault(alias, error)
        _forget(control, committed, aliases, done)
    return done


def _resolve_one(alias: str, cluster: UUID, control: Any, min_age: float, done: Resolution) -> None:
    with session(alias) as cursor:
        for each in in_doubt(cursor, alias, cluster):
            try:
                _finish(each, cursor, control, min_age, done)
            except Error as error:
                # Another one may still be finished; this one is tried again by the next pass.
                done.failures.setdefault(alias, error)


def _finish(each: InDoubt, cursor: Any, control: Any, min_age: float, done: Resolution) -> None:
    if each.age < min(min_age, GRACE):
        done.left.append(each)
        return
    verdict = decisions.verdict(control, each.gid.transaction)
    if verdict is None:
        if each.age < min_age:
            done.left.append(each)
            return
        verdict = decisions.refuse(control, each.gid.transaction)
        if verdict is None:
            return
    try:
        cursor.execute(f"{'COMMIT' if verdict else 'ROLLBACK'} PREPARED {each.gid.literal}")
    except Error as error:
        if is_being_finished(error):
            done.left.append(each)
        elif not is_finished(error):
            raise
        return
    (done.committed if verdict else done.rolled_back).append(each)


def _forget(control: Any, committed: dict[str, list[str]], aliases: Sequence[str], done: Resolution) -> None:
    """Forget the decisions that are carried out on every database they name."""
    looked_at = set(aliases) - set(done.failures)
    pending = {each.gid.transaction for each in done.left}
    carried_out = [
        transaction
        for transaction, names in committed.items()
        if looked_at.issuperset(names) and transaction not in pending
    ]
    if carried_out:
        decisions.forget(control, carried_out)

"""
A shard that was restored from a backup: what its fence and the bucket map disagree about, and how they agree again.

The map is right about whose a bucket is. About the rows nobody but the operator can know: those that came to a shard,
or were written there, after its backup are not in it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS, Error

from sharding import conf, initialisation, stored_cluster
from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.bucket_states import FENCE, BucketState
from sharding.commits.sessions import session
from sharding.direct_connection import direct_connection
from sharding.errors import MapConflict, UnknownShard
from sharding.fence import agreement, barrier, states
from sharding.fence.agreement import Disagreement, Kind
from sharding.minting import SEQUENCE
from sharding.operations import places

#: Of ids that a shard has minted since its backup, none is minted again: so many are left out. It can mint 2**41.
SKIPPED = 2**30
#: What the operator has to accept: rows that may be older than the cluster's.
DOUBTFUL = frozenset({Kind.MISSING, Kind.OUTDATED})


@dataclass(frozen=True, slots=True)
class Doubt:
    """A disagreement, and how many rows of the bucket are here and on other shards; None for one that is down."""

    found: Disagreement
    here: int
    elsewhere: Mapping[str, int | None]


@dataclass(frozen=True, slots=True)
class Look:
    """What is known of one shard."""

    alias: str
    #: Of the bucket map.
    epoch: int
    doubts: tuple[Doubt, ...]

    def of(self, kinds: Collection[Kind]) -> list[Doubt]:
        return [doubt for doubt in self.doubts if doubt.found.kind in kinds]

    @property
    def moving(self) -> list[Doubt]:
        """Return the buckets whose move explains what the fence says, or is in the way."""
        return [doubt for doubt in self.doubts if doubt.found.moving is not None]


def look(alias: str) -> Look:
    """
    Compare the fence of a shard with the stored bucket map.

    Raises:
        UnknownShard: the alias is no shard.
        MapConflict: the shard has no fence, or is another one.
        MapOutdated: the control database is older than the shard.
    """
    _require_fence(alias)
    with direct_connection(alias) as connection, session(DEFAULT_DB_ALIAS) as control:
        return _look(alias, connection, control)


def certify(alias: str, *, accept_rows: bool) -> Look:
    """
    Make the fence of a shard agree with the bucket map, and return what is left.

    Buckets of others are hidden, and their rows stay. Buckets of its own become so only if their rows are accepted.

    Raises:
        MapConflict: a move is under way of a bucket that is disagreed about; or as look().
    """
    _require_fence(alias)
    with direct_connection(alias) as connection, session(DEFAULT_DB_ALIAS) as control:
        # No move of any bucket is decided before this is done.
        with _in_transaction(control):
            control.execute("LOCK TABLE sharding_bucket IN SHARE MODE")
            before = _look(alias, connection, control)
            refuse_moving(before)
            for doubt in before.doubts:
                if doubt.found.kind not in DOUBTFUL or accept_rows:
                    _settle(connection.connection, doubt.found)
            _skip_ids(connection)
            after = _look(alias, connection, control)
        if not after.doubts:
            initialisation.identify(alias)
    return after


def refuse_moving(found: Look) -> None:
    """
    Do nothing if no move is under way of what is disagreed about.

    Raises:
        MapConflict: one is.
    """
    if found.moving:
        moves = ", ".join(str(doubt.found.moving) for doubt in found.moving[:5])
        more = f" and {len(found.moving) - 5:,} more" if len(found.moving) > 5 else ""
        raise MapConflict(
            f"{found.alias!r} cannot be certified while moves are under way of buckets about which its fence and the "
            f"bucket map disagree: {moves}{more}. Let them end, or take them back; where a move cannot go on any more "
            f"because of the restore, restore its other shard to the same moment."
        )


def _require_fence(alias: str) -> None:
    if alias not in places.databases():
        raise UnknownShard(
            f"{alias!r} is no shard of this cluster. Its databases are {', '.join(places.databases())}.", alias=alias
        )
    if conf.current().fence is None or not places.is_postgresql(alias):
        raise MapConflict(
            f"{alias!r} has no fence, so there is nothing to certify. Fences are PostgreSQL's, with SHARDING['FENCE']."
        )


def _look(alias: str, connection: Any, control: Any) -> Look:
    expected = stored_cluster.cluster()
    identity = stored_cluster.identity(alias)
    if expected is None or identity is None:
        raise MapConflict(
            f"{alias!r} is not known as a shard of a cluster. Run `manage.py migrate_all` and `manage.py shards init`."
        )
    message = stored_cluster.contradiction(alias, identity, expected)
    if message is not None:
        raise MapConflict(f"{message} Correct the URL of {alias!r}, or restore the newest map.")
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT to_regclass('{FENCE}') IS NOT NULL")
        ((is_there,),) = cursor.fetchall()
    if not is_there:
        raise MapConflict(f"{alias!r} has no table {FENCE}. Run `manage.py migrate_all`, and then this again.")
    fence = states.states(connection)
    found = list(agreement.disagreements(alias, fence, agreement.stored(control)))
    return Look(alias, expected.epoch, tuple(_with_rows(alias, connection, found)))


def _with_rows(alias: str, connection: Any, found: list[Disagreement]) -> Iterator[Doubt]:
    if not found:
        return
    buckets = [each.bucket for each in found]
    here = _rows(connection, alias, buckets)
    others = {other: _rows_of(other, buckets) for other in places.databases() if other != alias}
    for each in found:
        elsewhere = {other: None if rows is None else rows.get(each.bucket, 0) for other, rows in others.items()}
        yield Doubt(each, here.get(each.bucket, 0), {other: rows for other, rows in elsewhere.items() if rows != 0})


def _rows_of(alias: str, buckets: list[int]) -> dict[int, int] | None:
    """Return the rows that another shard has of some buckets, hidden ones too; None if it does not answer."""
    try:
        with direct_connection(alias) as connection:
            return _rows(connection, alias, buckets)
    except Error:
        return None


def _rows(connection: Any, alias: str, buckets: list[int]) -> dict[int, int]:
    found: dict[int, int] = {}
    for entry in places.present(alias, places.entries()):
        table = connection.ops.quote_name(entry.table)
        query = f"SELECT bucket, count(*) FROM {table} WHERE bucket = ANY(%s::smallint[]) GROUP BY bucket"
        with connection.cursor() as cursor:
            cursor.execute(f"{CONTROL_ONLY} {query}", [buckets])
            for bucket, rows in cursor.fetchall():
                found[bucket] = found.get(bucket, 0) + rows
    return found


def _settle(raw: Any, found: Disagreement) -> None:
    fence, owner = found.fence, found.owner
    expected = {None if fence is None else fence.state}
    generation = 0 if fence is None else fence.generation

    def act(cursor: Any) -> bool:
        if found.kind is Kind.FOREIGN:
            return barrier.change(
                cursor, found.bucket, generation, expected, BucketState.MOVED, epoch=owner.epoch, forward=owner.shard
            )
        for table in ("sharding_dirty", "sharding_progress"):
            cursor.execute(f"DELETE FROM {table} WHERE bucket = %s", [found.bucket])
        return barrier.change(
            cursor, found.bucket, generation, expected, BucketState.OWNED, epoch=max(owner.epoch, _epoch(found))
        )

    if not barrier.behind(raw, found.bucket, act):
        raise MapConflict(
            f"What the fence says of bucket {found.bucket} has changed while it was compared. Run this again."
        )


def _epoch(found: Disagreement) -> int:
    return 0 if found.fence is None else found.fence.epoch


def _skip_ids(connection: Any) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT setval('{SEQUENCE}', nextval('{SEQUENCE}') + %s)", [SKIPPED])


@contextmanager
def _in_transaction(cursor: Any) -> Iterator[None]:
    cursor.execute("BEGIN")
    yield
    # Whatever happens before, the session ends, and its transaction with it.
    cursor.execute("COMMIT")

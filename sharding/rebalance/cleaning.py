"""
What moves have left where it should not be: found by the fences, and taken away where no move needs it.

Rows of a bucket that a fence hides, with no move of it under way: an attempt slept until all was over. Notes and
progress of buckets that nobody copies. Records of clean-up whose move has ended.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from sharding.bucket_states import BucketState
from sharding.fence import barrier
from sharding.rebalance import late_notes
from sharding.rebalance.facts import MoveFacts
from sharding.rebalance.purging import PURGED, Purge
from sharding.rebalance.sessions import Session, open_session, transaction
from sharding.rebalance.tables import Table, sharded_tables

_LIVE = "SELECT bucket FROM sharding_move WHERE phase NOT IN ('done', 'aborted')"
# By the map. What a restored shard hides of these is for `shards certify`: it may be all there is.
_OWNED = "SELECT bucket FROM sharding_bucket WHERE shard = %s"
_HIDDEN = """
SELECT bucket, state FROM sharding_fence WHERE state IN ('importing', 'moved') AND bucket <> ALL(%s) ORDER BY bucket
"""
_NOTED = """
SELECT d.bucket, count(*) FROM sharding_dirty AS d LEFT JOIN sharding_fence AS f ON f.bucket = d.bucket
WHERE f.state IS DISTINCT FROM 'capturing' AND d.bucket <> ALL(%s) GROUP BY d.bucket ORDER BY d.bucket
"""
_PROGRESS = """
SELECT bucket, count(*) FROM sharding_progress WHERE bucket <> ALL(%s) GROUP BY bucket ORDER BY bucket
"""
_RECORDS = """
SELECT c.bucket, c.shard, c.kind FROM sharding_cleanup AS c LEFT JOIN sharding_move AS m ON m.id = c.move
WHERE m.id IS NULL OR m.phase IN ('done', 'aborted') ORDER BY c.id
"""


@dataclass(frozen=True, slots=True)
class Leftover:
    """Something of one bucket on one shard that no move needs any more."""

    alias: str
    bucket: int
    #: "rows" that the fence hides, "notes", "progress", or "record" in the control database.
    kind: str
    detail: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def leftovers(control: Session, aliases: tuple[str, ...]) -> list[Leftover]:
    """Return what no move needs any more, on the given databases and in the control database; changes nothing."""
    live = _live(control)
    found: list[Leftover] = []
    for alias in aliases:
        with open_session(alias) as session:
            found.extend(_on_shard(session, live, _owned(control, alias)))
    rows = control.connection.execute(_RECORDS).fetchall()
    found.extend(Leftover(control.alias, bucket, "record", f"{kind} on {shard}") for bucket, shard, kind in rows)
    return found


def clean(control: Session, found: list[Leftover]) -> list[Leftover]:
    """
    Take away what was found, and return what is gone: not what a move has come to need meanwhile.

    Rows are deleted where the fence still hides them, and the fence forgets the bucket in the end.
    """
    done = []
    for each in found:
        if each.kind == "record":
            _forget_records(control, each)
            done.append(each)
            continue
        # A number that no earlier attempt has, and every later one surpasses: theirs is the bucket.
        generation = _new_generation(control)
        if each.bucket in _live(control) or (each.kind == "rows" and each.bucket in _owned(control, each.alias)):
            continue
        with open_session(each.alias, buckets=each.bucket, generation=generation) as session:
            if _clean(session, each, generation):
                done.append(each)
    return done


def _on_shard(session: Session, live: list[int], owned: list[int]) -> Iterator[Leftover]:
    for bucket, state in session.connection.execute(_HIDDEN, [[*live, *owned]]).fetchall():
        yield Leftover(session.alias, bucket, "rows", f"the bucket is {state}")
    for kind, query in (("notes", _NOTED), ("progress", _PROGRESS)):
        for bucket, number in session.connection.execute(query, [live]).fetchall():
            yield Leftover(session.alias, bucket, kind, f"{number} lines")


def _clean(session: Session, each: Leftover, generation: int) -> bool:
    if each.kind == "rows":
        return _purge(session, each.bucket, generation, sharded_tables(session))
    if each.kind == "notes":
        late_notes.discard(session, [each.bucket])
        return True
    session.connection.execute(
        "DELETE FROM sharding_progress WHERE bucket = %s "
        "AND NOT EXISTS (SELECT FROM sharding_fence WHERE bucket = %s AND state = 'importing')",
        [each.bucket, each.bucket],
    )
    return True


def _purge(session: Session, bucket: int, generation: int, tables: tuple[Table, ...]) -> bool:
    with transaction(session) as cursor:
        cursor.execute(
            "UPDATE sharding_fence SET generation = %s WHERE bucket = %s AND generation < %s AND state = ANY(%s)",
            [generation, bucket, generation, [str(state) for state in sorted(PURGED)]],
        )
        if not cursor.rowcount:
            return False
    Purge(session, [MoveFacts(bucket, generation, tables)]).run()
    with transaction(session) as cursor:
        return barrier.change(cursor, bucket, generation, {BucketState.IMPORTING, BucketState.MOVED}, None)


def _forget_records(control: Session, each: Leftover) -> None:
    control.connection.execute(
        "DELETE FROM sharding_cleanup AS c WHERE bucket = %s AND NOT EXISTS "
        "(SELECT FROM sharding_move AS m WHERE m.id = c.move AND m.phase NOT IN ('done', 'aborted'))",
        [each.bucket],
    )


def _live(control: Session) -> list[int]:
    return [bucket for (bucket,) in control.connection.execute(_LIVE).fetchall()]


def _owned(control: Session, alias: str) -> list[int]:
    return [bucket for (bucket,) in control.connection.execute(_OWNED, [alias]).fetchall()]


def _new_generation(control: Session) -> int:
    ((generation,),) = control.connection.execute(
        "INSERT INTO sharding_attempt (move, worker, begun) VALUES (0, 'rebalance cleanup', now()) RETURNING id"
    ).fetchall()
    return int(generation)

"""
The rows of moves in the control database: read, and changed only by the attempt that has the move in hand.

Every change compares the attempt's generation and the phase in which it was decided upon, in the statement that sets.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sharding.errors import RebalanceError, Superseded
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.report import Report
from sharding.rebalance.sessions import Cursor, Session, transaction

#: What of a move's row a mover needs.
COLUMNS = "id, bucket, source, target, phase, wanted, generation, epoch, announced, window_ends, failures"
#: Phases to which a move comes again and again that cannot be decided: each failure makes it wait longer.
_REPEATED = frozenset({Phase.CATCHING_UP, Phase.VERIFYING, Phase.FENCING, Phase.FINISHING})


class Interrupted(RebalanceError):
    """The mover is to stop, or the operator wants something else of the move; nothing has failed."""


@dataclass(frozen=True, slots=True)
class StoredMove:
    """One move as its row says."""

    id: int
    bucket: int
    source: str
    target: str
    phase: Phase
    wanted: Wanted
    #: Of the attempt that has it in hand.
    generation: int
    #: Of the bucket map, by the decision; None before it.
    epoch: int | None
    announced: datetime | None
    window_ends: datetime | None
    failures: int


@dataclass(frozen=True, slots=True)
class Standing:
    """A move, and what else the control database says at the same instant."""

    move: StoredMove
    #: Of the bucket, by the map.
    owner: str
    now: datetime


def of_row(row: tuple[Any, ...]) -> StoredMove:
    """Return the move that a row with COLUMNS stands for."""
    number, bucket, source, target, phase, wanted, *rest = row
    return StoredMove(number, bucket, source, target, Phase(phase), Wanted(wanted), *rest)


def read(control: Session, move: int) -> Standing:
    """Return a move and the owner of its bucket, of one instant."""
    found = control.connection.execute(
        f"SELECT m.*, b.shard, now() FROM (SELECT {COLUMNS} FROM sharding_move WHERE id = %s) AS m "
        f"JOIN sharding_bucket AS b ON b.bucket = m.bucket",
        [move],
    ).fetchone()
    assert found is not None, f"Move {move} has no row."
    return Standing(of_row(found[:-2]), found[-2], found[-1])


def record(control: Session, move: StoredMove, phase: Phase, assigned: str = "", values: tuple[Any, ...] = ()) -> None:
    """
    Let a move be in another phase, and set other columns with it.

    Raises:
        Superseded: another attempt has taken over.
    """
    # One statement, which commits by itself: nobody may write the bucket meanwhile.
    with control.connection.cursor() as cursor:
        set_phase(cursor, control.alias, move, phase, assigned, values)


def set_phase(
    cursor: Cursor, alias: str, move: StoredMove, phase: Phase, assigned: str = "", values: tuple[Any, ...] = ()
) -> None:
    """Do what record() does in a transaction that does more."""
    failures = "failures" if phase in _REPEATED else "0"
    _update(cursor, alias, move, f"phase = %s, failures = {failures}, retry_at = NULL{assigned and f', {assigned}'}",
            (str(phase), *values))  # fmt: skip


def keep_wish(cursor: Cursor, move: StoredMove) -> None:
    """
    Let nobody want something else of a move before the transaction ends: afterwards it would come too late.

    Raises:
        Interrupted: somebody has since the step was chosen.
    """
    cursor.execute("SELECT wanted FROM sharding_move WHERE id = %s FOR UPDATE", [move.id])
    ((wanted,),) = cursor.fetchall()
    if Wanted(wanted) is not move.wanted:
        raise Interrupted(f"Bucket {move.bucket} is to {wanted}.")


def rest(control: Session, move: StoredMove, seconds: float) -> None:
    """Let a move wait, of which nobody knows when it can go on, unless the operator wants something else of it."""
    control.connection.execute(
        "UPDATE sharding_move SET retry_at = now() + make_interval(secs => %s) "
        "WHERE id = %s AND generation = %s AND phase = %s AND wanted = %s",
        [seconds, move.id, move.generation, str(move.phase), str(move.wanted)],
    )


def set_report(control: Session, move: StoredMove, report: Report) -> None:
    """Keep what a verification has found."""
    with transaction(control) as cursor:
        _update(cursor, control.alias, move, "report = %s::jsonb", (json.dumps(report.as_json()),))


def give_sign(control: Session, move: StoredMove, copied: int, noted: int | None) -> Wanted:
    """Say how far the copy has come, and that somebody is at it; return what the operator wants by now."""
    found = control.connection.execute(
        "UPDATE sharding_move SET changed = now(), copied = copied + %s, noted = coalesce(%s, noted) "
        "WHERE id = %s AND generation = %s RETURNING wanted",
        [copied, noted, move.id, move.generation],
    ).fetchone()
    if found is None:
        raise superseded(control.alias, move)
    return Wanted(found[0])


def decide(control: Session, move: StoredMove, *, committing: Callable[[], None] = lambda: None) -> int:
    """
    Give the bucket to the target: phase, map and epoch change together. Return the new epoch.

    What is to be cleaned up is on the other side from here on.

    Args:
        committing: called before the commit, after which nobody knows what has become of it until it is answered.

    Raises:
        Superseded: another attempt has taken over.
        Interrupted: the operator wants something else.
    """
    with transaction(control) as cursor:
        keep_wish(cursor, move)
        cursor.execute("UPDATE sharding_cluster SET epoch = epoch + 1 RETURNING epoch")
        ((epoch,),) = cursor.fetchall()
        set_phase(cursor, control.alias, move, Phase.DECIDED, "epoch = %s", (epoch,))
        cursor.execute(
            "UPDATE sharding_bucket SET shard = %s, epoch = %s WHERE bucket = %s AND shard = %s",
            [move.target, epoch, move.bucket, move.source],
        )
        if cursor.rowcount != 1:
            raise superseded(control.alias, move)
        cursor.execute("DELETE FROM sharding_cleanup WHERE move = %s", [move.id])
        note_clean_up(cursor, move, rows=move.source, notes=move.target)
        committing()
    return int(epoch)


def note_clean_up(cursor: Cursor, move: StoredMove, *, rows: str, notes: str) -> None:
    """Write down what the move is about to leave on shards, before it does."""
    cursor.executemany(
        "INSERT INTO sharding_cleanup (move, shard, kind, bucket) VALUES (%s, %s, %s, %s)",
        [(move.id, rows, "rows", move.bucket), (move.id, notes, "notes", move.bucket)],
    )


def close(control: Session, move: StoredMove, phase: Phase) -> None:
    """Record that a move is over, and that nothing is left of it."""
    with transaction(control) as cursor:
        set_phase(cursor, control.alias, move, phase)
        cursor.execute("DELETE FROM sharding_cleanup WHERE move = %s", [move.id])


def reverse(control: Session, move: StoredMove) -> int:
    """End a move and begin the one back, which this attempt has in hand; return its number."""
    with transaction(control) as cursor:
        set_phase(cursor, control.alias, move, Phase.DONE)
        cursor.execute(
            "INSERT INTO sharding_move (plan, bucket, source, target, phase, wanted, generation, rows, bytes, copied, "
            "noted, planned, begun, changed, error, failures) SELECT plan, bucket, target, source, %s, %s, generation, "
            "rows, bytes, 0, 0, now(), now(), now(), '', 0 FROM sharding_move WHERE id = %s RETURNING id",
            [str(Phase.CATCHING_UP), str(Wanted.GO), move.id],
        )
        ((number,),) = cursor.fetchall()
        cursor.execute("UPDATE sharding_cleanup SET move = %s WHERE move = %s", [number, move.id])
    return int(number)


def _update(cursor: Cursor, alias: str, move: StoredMove, assigned: str, values: tuple[Any, ...]) -> None:
    cursor.execute(
        f"UPDATE sharding_move SET {assigned}, changed = now() WHERE id = %s AND generation = %s AND phase = %s",
        [*values, move.id, move.generation, str(move.phase)],
    )
    if cursor.rowcount != 1:
        raise superseded(alias, move)


def superseded(alias: str, move: StoredMove) -> Superseded:
    return Superseded(
        f"The move of bucket {move.bucket} from {move.source!r} to {move.target!r} is no longer in the hands of "
        f"attempt {move.generation}, or no longer {move.phase.value}. Leave it to whoever has it.",
        bucket=move.bucket,
        alias=alias,
        generation=move.generation,
        found=None,
        state=move.phase.value,
    )

"""
The rows of moves in the control database: read, and changed only by the attempt that has the moves in hand.

Every change compares the attempt's generation and the phase in which it was decided upon, in the statement that sets.
Moves that are given together are in the same hands and the same phase; in one transaction all of them change, or none.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sharding.errors import RebalanceError, Superseded
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.report import Report
from sharding.rebalance.sessions import Cursor, Session, transaction

#: What of a move's row a mover needs.
COLUMNS = "id, bucket, source, target, phase, wanted, generation, epoch, announced, window_ends, failures, rows"
#: Moves that are about to change, locked in the order in which everybody locks several of them.
IN_ORDER = "SELECT id FROM sharding_move WHERE id = ANY(%s) ORDER BY id FOR UPDATE"
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
    #: What the plan expects to go over.
    rows: int


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


def read(control: Session, moves: Iterable[int]) -> dict[int, Standing]:
    """Return some moves, by number, and the owners of their buckets, of one instant."""
    found = control.connection.execute(
        f"SELECT m.*, b.shard, now() FROM (SELECT {COLUMNS} FROM sharding_move WHERE id = ANY(%s)) AS m "
        f"JOIN sharding_bucket AS b ON b.bucket = m.bucket",
        [[*moves]],
    )
    return {row[0]: Standing(of_row(row[:-2]), row[-2], row[-1]) for row in found.fetchall()}


def read_one(control: Session, move: int) -> Standing:
    """Return one move and the owner of its bucket."""
    return read(control, [move])[move]


def record(
    control: Session, moves: Sequence[StoredMove], phase: Phase, assigned: str = "", values: tuple[Any, ...] = ()
) -> None:
    """
    Let moves be in another phase, and set other columns with it.

    Raises:
        Superseded: another attempt has taken over.
    """
    # One statement, which commits by itself: nobody may write the buckets meanwhile. Those moves that are still the
    # attempt's have changed then, also if another one is not.
    with control.connection.cursor() as cursor:
        set_phase(cursor, control.alias, moves, phase, assigned, values)


def set_phase(
    cursor: Cursor,
    alias: str,
    moves: Sequence[StoredMove],
    phase: Phase,
    assigned: str = "",
    values: tuple[Any, ...] = (),
) -> None:
    """Do what record() does in a transaction that does more."""
    failures = "failures" if phase in _REPEATED else "0"
    _update(cursor, alias, moves, f"phase = %s, failures = {failures}, retry_at = NULL{assigned and f', {assigned}'}",
            (str(phase), *values))  # fmt: skip


def keep_wish(cursor: Cursor, moves: Sequence[StoredMove]) -> None:
    """
    Let nobody want something else of moves before the transaction ends: afterwards it would come too late.

    Raises:
        Interrupted: somebody has since the step was chosen.
    """
    cursor.execute("SELECT id, wanted FROM sharding_move WHERE id = ANY(%s) ORDER BY id FOR UPDATE", [_ids(moves)])
    wanted: dict[int, str] = dict(cursor.fetchall())
    for move in moves:
        if Wanted(wanted[move.id]) is not move.wanted:
            raise Interrupted(f"Bucket {move.bucket} is to {wanted[move.id]}.")


def rest(control: Session, move: StoredMove, seconds: float) -> None:
    """Let a move wait, of which nobody knows when it can go on, unless the operator wants something else of it."""
    control.connection.execute(
        "UPDATE sharding_move SET retry_at = now() + make_interval(secs => %s) "
        "WHERE id = %s AND generation = %s AND phase = %s AND wanted = %s",
        [seconds, move.id, move.generation, str(move.phase), str(move.wanted)],
    )


def set_reports(control: Session, reports: Iterable[tuple[StoredMove, Report]]) -> None:
    """Keep what verifications have found."""
    with transaction(control) as cursor:
        for move, report in reports:
            _update(cursor, control.alias, [move], "report = %s::jsonb", (json.dumps(report.as_json()),))


@dataclass(frozen=True, slots=True)
class Sign:
    """That somebody is at a move: how many more rows are copied, and how many notes are left, if that is known."""

    move: StoredMove
    copied: int
    noted: int | None


def give_signs(control: Session, signs: Sequence[Sign]) -> dict[int, Wanted]:
    """Say how far moves have come, and that somebody is at them; return what is wanted by now of those that go on."""
    found = control.connection.execute(
        f"UPDATE sharding_move AS m SET changed = now(), copied = m.copied + given.copied, "
        f"noted = coalesce(given.noted, m.noted) "
        f"FROM unnest(%s::bigint[], %s::bigint[], %s::bigint[]) AS given (id, copied, noted) "
        f"WHERE m.id = given.id AND m.id IN ({IN_ORDER}) AND m.generation = %s "
        f"AND m.phase NOT IN ('done', 'aborted') RETURNING m.id, m.wanted",
        [
            [sign.move.id for sign in signs],
            [sign.copied for sign in signs],
            [sign.noted for sign in signs],
            _ids([sign.move for sign in signs]),
            signs[0].move.generation,
        ],
    )
    return {number: Wanted(wanted) for number, wanted in found.fetchall()}


def decide(control: Session, moves: Sequence[StoredMove], *, committing: Callable[[], None] = lambda: None) -> int:
    """
    Give the buckets to the target: phases, map and epoch change together. Return the new epoch.

    What is to be cleaned up is on the other side from here on.

    Args:
        moves: from one source to one target.
        committing: called before the commit, after which nobody knows what has become of it until it is answered.

    Raises:
        Superseded: another attempt has taken over.
        Interrupted: the operator wants something else.
    """
    source, target = moves[0].source, moves[0].target
    with transaction(control) as cursor:
        keep_wish(cursor, moves)
        cursor.execute("UPDATE sharding_cluster SET epoch = epoch + 1 RETURNING epoch")
        ((epoch,),) = cursor.fetchall()
        set_phase(cursor, control.alias, moves, Phase.DECIDED, "epoch = %s", (epoch,))
        cursor.execute(
            "UPDATE sharding_bucket SET shard = %s, epoch = %s WHERE bucket = ANY(%s) AND shard = %s",
            [target, epoch, [move.bucket for move in moves], source],
        )
        if cursor.rowcount != len(moves):
            raise superseded(control.alias, moves)
        cursor.execute("DELETE FROM sharding_cleanup WHERE move = ANY(%s)", [_ids(moves)])
        note_clean_up(cursor, moves, rows=source, notes=target)
        committing()
    return int(epoch)


def note_clean_up(cursor: Cursor, moves: Sequence[StoredMove], *, rows: str, notes: str) -> None:
    """Write down what moves are about to leave on shards, before they do."""
    cursor.executemany(
        "INSERT INTO sharding_cleanup (move, shard, kind, bucket) VALUES (%s, %s, %s, %s)",
        [(move.id, alias, kind, move.bucket) for move in moves for alias, kind in ((rows, "rows"), (notes, "notes"))],
    )


def close(control: Session, moves: Sequence[StoredMove], phase: Phase) -> None:
    """Record that moves are over, and that nothing is left of them."""
    with transaction(control) as cursor:
        set_phase(cursor, control.alias, moves, phase)
        cursor.execute("DELETE FROM sharding_cleanup WHERE move = ANY(%s)", [_ids(moves)])


def reverse(control: Session, move: StoredMove) -> int:
    """End a move and begin the one back, which this attempt has in hand; return its number."""
    with transaction(control) as cursor:
        set_phase(cursor, control.alias, [move], Phase.DONE)
        cursor.execute(
            "INSERT INTO sharding_move (plan, bucket, source, target, phase, wanted, generation, rows, bytes, copied, "
            "noted, planned, begun, changed, error, failures) SELECT plan, bucket, target, source, %s, %s, generation, "
            "rows, bytes, 0, 0, now(), now(), now(), '', 0 FROM sharding_move WHERE id = %s RETURNING id",
            [str(Phase.CATCHING_UP), str(Wanted.GO), move.id],
        )
        ((number,),) = cursor.fetchall()
        cursor.execute("UPDATE sharding_cleanup SET move = %s WHERE move = %s", [number, move.id])
    return int(number)


def _update(cursor: Cursor, alias: str, moves: Sequence[StoredMove], assigned: str, values: tuple[Any, ...]) -> None:
    cursor.execute(
        f"UPDATE sharding_move SET {assigned}, changed = now() "
        f"WHERE id IN ({IN_ORDER}) AND generation = %s AND phase = %s",
        [*values, _ids(moves), moves[0].generation, str(moves[0].phase)],
    )
    if cursor.rowcount != len(moves):
        raise superseded(alias, moves)


def _ids(moves: Iterable[StoredMove]) -> list[int]:
    return sorted(move.id for move in moves)


def superseded(alias: str, moves: Sequence[StoredMove]) -> Superseded:
    """Return the error of an attempt that has lost one of some moves; whichever it is, it does nothing more for any."""
    first, others = moves[0], "".join(f", or that of bucket {move.bucket}" for move in moves[1:])
    return Superseded(
        f"The move of bucket {first.bucket}{others} from {first.source!r} to {first.target!r} is no longer in the "
        f"hands of attempt {first.generation}, or no longer {first.phase.value}. Leave it to whoever has it.",
        bucket=first.bucket,
        alias=alias,
        generation=first.generation,
        found=None,
        state=first.phase.value,
    )

"""
What each part of the protocol is there for: something happens at the one statement where it would be lost without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from sharding import cluster_map
from sharding.errors import Superseded
from sharding.rebalance import decided_steps, fences, seeing, stored_moves, undecided_steps
from sharding.rebalance.attempt import Attempt, Round, moves_of
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase
from sharding.rebalance.sessions import Sessions, open_session
from sharding.rebalance.tables import sharded_tables
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import rows, session
from tests.moving.scenes import MODELS, control_session
from tests.moving.statements import Statement, watched
from tests.moving.ways import Lost, finish, once, stop_at, within

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)
TOTAL = "UPDATE shop_order SET total = %s WHERE bucket = %s AND total = %s"


@pytest.fixture
def writer(scene: Any) -> Iterator[psycopg.Connection[Any]]:
    """A session of the application at the source."""
    with closing(session("shard_a")) as connection:
        connection.execute("SET lock_timeout = '10s'")
        yield connection


def begin(writer, scene, new, old):
    writer.execute("BEGIN")
    assert writer.execute(TOTAL, [new, scene.bucket, old]).rowcount == 1


def assert_arrived(scene, *totals):
    """The move has gone well, and what was acknowledged is there."""
    assert (scene.move.phase, scene.move.error, scene.move.failures) == ("done", "", 0)
    assert sorted(int(row["total"]) for row in rows("shard_b", scene.bucket)["shop_order"].values()) == sorted(totals)
    assert scene.rows("shard_a") == {}
    assert scene.leftovers() == {}


@pytest.mark.parametrize(("step", "late"), [("Capture", "Verify"), ("Fence", "Decide")])
def test_writers_that_are_at_it_are_waited_for(scene, writer, step, late):
    """It commits while the barrier is tried again; if there were none, when it is too late."""
    seen = []

    def before(statement):
        if statement.within == step and not seen:
            begin(writer, scene, 77, 0)
        waits = statement.within == step and "pg_advisory_xact_lock" in statement.text
        too_late = statement.within == late and (late == "Verify" or statement.text.startswith("UPDATE sharding_move"))
        if waits or too_late or statement.within == step:
            seen.append(waits)
        if (sum(seen) > 1 or too_late) and writer.info.transaction_status.name == "INTRANS":
            writer.execute("COMMIT")

    with watched(before):
        finish(scene)
    assert_arrived(scene, 77, 1, 2)


def test_notes_are_read_behind_the_barrier(scene, writer):
    def write():
        assert writer.execute(TOTAL, [77, scene.bucket, 0]).rowcount == 1

    at_the_barrier = lambda each: each.within == "Fence" and "'lock_timeout'" in each.text  # noqa: E731
    with once(at_the_barrier, write) as met:
        finish(scene)
    assert met
    assert_arrived(scene, 77, 1, 2)


def test_a_note_that_appears_late_with_a_low_number_is_not_forgotten(scene, writer):
    with closing(session("shard_a")) as quick:

        def begin_both():
            begin(writer, scene, 77, 0)
            assert quick.execute(TOTAL, [88, scene.bucket, 1]).rowcount == 1

        forgets = lambda each: each.within == "CatchUp" and each.text.startswith("DELETE FROM sharding_dirty")  # noqa: E731
        with once(within("CatchUp"), begin_both), once(forgets, lambda: writer.execute("COMMIT")) as met:
            finish(scene)
    assert met
    assert_arrived(scene, 77, 88, 2)


def test_a_row_that_is_written_while_its_chunk_is_on_its_way_arrives(scene, writer):
    with open_session("shard_a") as source:
        # Those without rows need no chunk.
        filled = {model._meta.db_table for model in MODELS}
        tables = [table.name for table in sharded_tables(source) if table.name in filled]
    copied: list[Statement] = []

    def is_the_chunk_of_orders(each: Statement) -> bool:
        if each.within == "Copy" and each.text.startswith("INSERT INTO sharding_progress"):
            copied.append(each)
        reads = each.within == "Copy" and "FROM sharding_dirty" in each.text
        # The source's snapshot is older than this statement.
        return reads and len(copied) == tables.index("shop_order")

    def write():
        assert writer.execute(TOTAL, [77, scene.bucket, 0]).rowcount == 1

    with once(is_the_chunk_of_orders, write) as met:
        finish(scene)
    assert met
    assert_arrived(scene, 77, 1, 2)


@pytest.mark.parametrize(
    "statement",
    ["SELECT id, wanted", "UPDATE sharding_move SET phase", "UPDATE sharding_cluster",
     "UPDATE sharding_bucket", "DELETE FROM sharding_cleanup", "INSERT INTO sharding_cleanup", "COMMIT"],
)  # fmt: skip
def test_a_decision_is_made_or_not(scene, statement):
    def lose():
        raise Lost

    def is_it(each: Statement) -> bool:
        return each.within == "Decide" and each.alias == "default" and each.text.startswith(statement)

    before = scene.rows("shard_a")
    with once(is_it, lose), pytest.raises(Lost):
        finish(scene)
    assert scene.move.phase == "finishing"
    assert cluster_map.refresh().owner(scene.bucket) == "shard_a"
    finish(scene)
    assert_arrived(scene, 0, 1, 2)
    assert scene.rows("shard_b") == before


#: What a mover does last before it stands still, and what it does when it is woken.
OVERTAKEN = [
    (Phase.CAPTURING, undecided_steps.Prepare()),
    (Phase.CAPTURING, undecided_steps.Capture()),
    (Phase.FENCING, undecided_steps.Fence()),
    (Phase.FINISHING, undecided_steps.Unfence()),
    (Phase.FINISHING, undecided_steps.Restore()),
    (Phase.COPYING, undecided_steps.Clear()),
    (Phase.DECIDED, decided_steps.Own()),
    (Phase.OWNING, decided_steps.Forward()),
    (Phase.PURGING, decided_steps.Settle()),
    (Phase.PURGING, decided_steps.Purge()),
]


@pytest.fixture
def attempt(scene):
    """Return a function that begins an attempt at the move as it stands."""
    with control_session() as control, open_session("shard_a") as source, open_session("shard_b") as target:

        def begun(change=lambda move: move):
            move = change(stored_moves.read_one(control, scene.move.id).move)
            return Round(control, Sessions(source, target), Options(), [Attempt(move, sharded_tables(source))])

        yield begun


@pytest.mark.parametrize(
    ("phase", "step"), OVERTAKEN, ids=[f"{phase} {type(step).__name__}" for phase, step in OVERTAKEN]
)
def test_an_attempt_that_was_overtaken_changes_no_fence(scene, attempt, phase, step):
    stop_at(scene, phase)
    for each in attempt().sessions.source, attempt().sessions.target:
        fences.claim(each, scene.bucket, scene.move.generation + 1)
    before = scene.states()
    with pytest.raises(Superseded) as caught:
        fences.change(attempt(), attempt().attempts, step)
    assert str(caught.value) == (
        f"Bucket {scene.bucket} on {attempt().at(step).alias!r} is no longer as attempt {scene.move.generation} has "
        f"seen it. Leave the move to whoever has it."
    )
    assert scene.states() == before


def test_one_that_was_overtaken_records_nothing(scene, attempt):
    stop_at(scene, Phase.FINISHING)
    late = attempt(lambda move: replace(move, generation=move.generation - 1))
    ((move,), late.signed) = moves_of(late.attempts), 0.0
    for act in (
        lambda: late.record(late.attempts, undecided_steps.Unfence()),
        lambda: stored_moves.decide(late.control, [move]),
        lambda: stored_moves.close(late.control, [move], Phase.DONE),
        lambda: stored_moves.reverse(late.control, move),
        late.look_up,
        lambda: see(late),
    ):
        with pytest.raises(Superseded) as caught:
            act()
        assert str(caught.value) == (
            f"The move of bucket {scene.bucket} from 'shard_a' to 'shard_b' is no longer in the hands of attempt "
            f"{move.generation}, or no longer finishing. Leave it to whoever has it."
        )
    assert scene.move.phase == "finishing"
    assert cluster_map.refresh().owner(scene.bucket) == "shard_a"


def see(work):
    ((_, seen),) = seeing.see(work)
    if isinstance(seen, Superseded):
        raise seen

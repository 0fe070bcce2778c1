"""
How tests bring a move to where they want it, and meddle there.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg
import pytest

from sharding.bucket_states import BucketState
from sharding.rebalance import claiming, failing
from sharding.rebalance.phases import Phase
from sharding.rebalance.steps import Step
from sharding.rebalance.stored_moves import StoredMove
from tests.layouts import CLUSTER
from tests.moving.applications import Application, fill, rows, session
from tests.moving.scenes import MAP_TTL, Scene
from tests.moving.statements import Statement, watched

OVER = (Phase.DONE, Phase.ABORTED)
#: Seconds after which a move that should be over is not.
PATIENCE = 60.0


def finish(scene: Scene, until: tuple[Phase, ...] = OVER, *, waiting: Callable[[], object] = lambda: None) -> None:
    """Run movers, whatever fails, until the move is in one of some phases; ``waiting`` is called before each."""
    deadline = time.monotonic() + PATIENCE
    while scene.move.phase not in until:
        assert time.monotonic() < deadline, f"The move stays in {scene.move.phase}: {scene.move.error}"
        waiting()
        with suppress(psycopg.OperationalError):
            scene.mover().run()
        time.sleep(MAP_TTL / 4)


class Lost(BaseException):
    """The mover is gone, as if it had been killed."""


def stop_at(scene: Scene, phase: Phase) -> None:
    """Let a mover be lost as soon as the move is in a phase."""

    def heard(move: StoredMove, step: Step) -> None:
        if step.leads_to == phase:
            raise Lost

    with suppress(Lost):
        while scene.move.phase not in OVER:
            scene.mover(heard=heard).run()
            time.sleep(MAP_TTL / 4)
    assert scene.move.phase == phase
    _let_go()


def _let_go() -> None:
    """Wait until no move is in anybody's hands: a server takes a while to end a session that was closed."""
    deadline = time.monotonic() + PATIENCE
    with closing(session("default")) as connection:
        while connection.execute(claiming._IN_HAND, [claiming.MOVE_LOCK]).fetchall():
            assert time.monotonic() < deadline, "Somebody has a move in hand."
            time.sleep(0.01)


@contextmanager
def once(wanted: Callable[[Statement], bool], act: Callable[[], object]) -> Iterator[list[Statement]]:
    """Do something before the first statement of a mover that is wanted, and yield a list which has it then."""
    met: list[Statement] = []

    def before(statement: Statement) -> None:
        if not met and wanted(statement):
            met.append(statement)
            act()

    with watched(before):
        yield met


def within(step: str, alias: str = "", place: int = 1) -> Callable[[Statement], bool]:
    """Return a condition: the first statement of a step, or the first one at a shard."""
    return lambda each: each.within == step and each.place >= place and alias in {"", each.alias}


def in_each_step(scene: Scene, alias: str, place: int, act: Callable[[], object]) -> list[str]:
    """
    Do something to a database before a statement that a mover sends there, in each step once, while rows are written.

    Return the steps in which it was done. The bucket has moved then, with all that was acknowledged.
    """
    fill(scene)
    keep_what_is_there()
    application = Application(scene, rows(scene.source, scene.bucket))
    done: list[str] = []
    counts: Counter[str] = Counter()

    def before(statement: Statement) -> None:
        if statement.alias == alias and statement.within not in done:
            counts[statement.within] += 1
            if counts[statement.within] == place:
                done.append(statement.within)
                act()

    with closing(application), watched(before):
        finish(scene, waiting=application.write)
    assert rows(scene.target, scene.bucket) == application.expected
    assert rows(scene.source, scene.bucket) == {}
    assert scene.states() == (None, "owned")
    assert scene.leftovers() == {}
    return done


def keep_what_is_there() -> None:
    """
    Let all that was committed before survive a crash, of this test's and of those before it.

    Servers of tests are set up to forget the last commits. Movers' must not be among them, so that this comes first.
    """
    for alias in CLUSTER:
        with session(alias) as connection:
            # A commit that writes something takes all before it along to the disk.
            connection.execute("SELECT pg_logical_emit_message(true, 'tests', 'kept')")


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let moves be tried again at once after a failure."""
    monkeypatch.setattr(failing, "PAUSES", (0.01,))


def set_state(alias: str, bucket: int, state: BucketState, **facts: Any) -> None:
    """Change a fence by hand."""
    pairs = "".join(f", {name} = {value}" for name, value in facts.items())
    with session(alias) as connection:
        connection.execute(f"UPDATE sharding_fence SET state = %s{pairs} WHERE bucket = %s", [str(state), bucket])


def as_mover(alias: str, bucket: int, query: str) -> int:
    """Change rows of a bucket as the mover that has it in hand may, and nobody else; return how many."""
    with session(alias) as connection, connection.transaction():
        connection.execute(
            "SELECT set_config('sharding.mover', generation::text, true) FROM sharding_fence WHERE bucket = %s",
            [bucket],
        )
        return connection.execute(query, [bucket]).rowcount

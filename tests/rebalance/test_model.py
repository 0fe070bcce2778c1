"""
The protocol of a move in every order of events, with processes that die, sleep, keep old maps and long transactions.

A protocol with a part left out must be found to lose a write, to give a wrong answer, or to get stuck: else the model
would not see what it is there to see.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from sharding.rebalance.phases import Phase
from sharding.rebalance.steps import Step
from tests.rebalance.model import Broken, explore
from tests.rebalance.movers import STEPS
from tests.rebalance.world import Client, Protocol, Scene

#: Some seconds each.
pytestmark = pytest.mark.slow

ABORT = (("go", "abort"),)
ROLLBACK = (("go", "rollback"),)
PAUSE = (("go", "pause"), ("pause", "go"))
ALL = (*ABORT, *ROLLBACK, *PAUSE)

WRITE, OTHER = Client("write"), Client("write", key=1)
#: Its map is of long ago.
LATE = Client("write", epoch=-1)
SNAPSHOT = Client("snapshot_write")
OUT = Client("out")
FAN_OUT, READ, SNAPSHOT_READ = Client("fan_out"), Client("read"), Client("snapshot_read")

SCENES = {
    "two writers": Scene((WRITE, LATE)),
    "a writer with a snapshot": Scene((SNAPSHOT,), orders=PAUSE),
    "a row that leaves": Scene((OUT,), orders=ALL),
    "a fan-out and a writer": Scene((FAN_OUT, WRITE)),
    "a reader and a writer": Scene((READ, WRITE)),
    "a reader with a snapshot": Scene((SNAPSHOT_READ,)),
    "every order to a writer": Scene((WRITE,), orders=ALL),
    "facts read one after the other": Scene((WRITE,), torn=True),
    "facts read one after the other under every order": Scene((), torn=True, orders=ALL),
    "a rollback and a fan-out": Scene((FAN_OUT,), orders=ROLLBACK),
    "a rollback and a reader": Scene((READ,), orders=ROLLBACK),
    "a rollback and a snapshot": Scene((SNAPSHOT,), orders=ROLLBACK),
    "three movers": Scene((), movers=3),
}
BIG_SCENES = {
    "a writer and one with a snapshot": Scene((SNAPSHOT, WRITE)),
    "a reader with a snapshot and a writer": Scene((SNAPSHOT_READ, WRITE)),
    "three movers and a writer": Scene((WRITE,), movers=3),
    "three movers under every order": Scene((), movers=3, orders=ALL),
    "two writers under every order": Scene((WRITE, LATE), orders=ALL),
    "two writers and a snapshot": Scene((WRITE, OUT, SNAPSHOT)),
    "a rollback, a fan-out and a writer": Scene((FAN_OUT, WRITE), orders=ROLLBACK),
}


@cache
def states(scene: Scene) -> int:
    """Return how many states there are, none of which breaks an invariant."""
    return len(explore(scene))


@pytest.mark.parametrize("scene", SCENES.values(), ids=SCENES)
def test_nothing_is_lost(scene):
    print(f"{states(scene)} states")


@pytest.mark.parametrize("scene", BIG_SCENES.values(), ids=BIG_SCENES)
def test_nothing_is_lost_among_more(scene):
    print(f"{states(scene)} states")


def test_the_model_goes_everywhere():
    """A model that stops early would find nothing wrong."""
    reached = explore(Scene((WRITE,), orders=ALL))
    assert {world.phase for world in reached} == {phase.value for phase in Phase}
    assert {type(step) for step in STEPS.values()} == set(Step.__subclasses__())
    ends = {(world.phase, world.epoch, world.clients[0][0]) for world in reached if world.phase in ("done", "aborted")}
    decisions = [("aborted", 0), ("done", 1), ("aborted", 1), ("done", 2)]
    assert {end for end in ends if end[2] == "done"} == {(*end, "done") for end in decisions}
    values = {(world.epoch, world.truth[0]) for world in reached}
    assert values == {(epoch, value) for epoch in (0, 1, 2) for value in ("old", "by 0")}


#: What is left out, who notices, and how.
BROKEN: dict[str, tuple[dict[str, Any], Scene, str]] = {
    "no drain at the first barrier": ({"first_drain": False}, Scene((WRITE,)), "lost write: the owner has"),
    "no drain at the second barrier": ({"second_drain": False}, Scene((WRITE,)), "lost write: the owner has"),
    "plain SELECT under REPEATABLE READ": ({"for_share": False}, Scene((SNAPSHOT,)), "lost write: the owner has"),
    "a STABLE guard": ({"volatile": False}, Scene((WRITE,)), "lost write: the owner has"),
    "a guard that looks at NEW alone": ({"checks_old": False}, Scene((OUT,)), "lost write: the owner has"),
    "no generation in the control database": (
        {"generations": ("source", "target")},
        Scene((), orders=ALL),
        "stuck: The move of bucket 0",
    ),
    "no generation on the source": ({"generations": ("control", "target")}, Scene(()), "stuck: left alone"),
    "no generation on the target": ({"generations": ("control", "source")}, Scene(()), "lost write: the owner has"),
    "notes read before the drain": ({"drains_fenced": False}, Scene((WRITE,)), "lost write: the owner has"),
    "notes deleted up to a number": ({"exact_notes": False}, Scene((WRITE, OTHER)), "lost write: the owner has"),
    "notes taken over beside the copy": ({"one_at_a_time": False}, Scene((WRITE,)), "lost write: the owner has"),
    "a decision in two transactions": ({"one_decision": False}, Scene(()), "stuck: The move of bucket 0"),
    "the target opened before the decision": (
        {"owns_after_decision": False},
        Scene(()),
        "I3: a shard accepts writes that the map does not name",
    ),
    "a purge while old maps are in use": ({"waits_for_maps": False}, Scene((READ,)), "wrong answer: of both rows"),
    "no rows believed": ({"checks_zero_rows": False}, Scene((WRITE,)), "lost write: 'no such row' was believed"),
    "no rows believed of a later epoch": ({"compares_epoch": False}, Scene((LATE,)), "lost write: 'no such row'"),
    "rows of an old snapshot believed": ({"checks_snapshots": False}, Scene((SNAPSHOT_READ,)), "wrong answer: of both"),
    "answers that are not compared with the map": ({"compares_shown": False}, Scene((FAN_OUT,)), "wrong answer: the"),
    "the fence's row deleted before the rows": ({"rows_before_fence": False}, Scene(()), "I6: left alone, the move"),
    "the move's row read before the fences": ({"reads_move_last": False}, Scene((), torn=True), "stuck: The move of"),
}


@pytest.mark.parametrize(
    ("left_out", "scene", "harm"),
    BROKEN.values(),
    ids=BROKEN,
)
def test_what_is_left_out_is_missed(left_out, scene, harm):
    assert states(scene) > 1
    with pytest.raises(Broken) as caught:
        explore(replace(scene, protocol=Protocol(**left_out), strict=False))
    assert str(caught.value).startswith(harm)


def test_every_part_is_left_out_once():
    assert {part for left_out, _, _ in BROKEN.values() for part in left_out} == set(Protocol.__dataclass_fields__)


@pytest.mark.parametrize(
    ("left_out", "scene", "breach"),
    [
        ({"second_drain": False}, Scene((WRITE,)), "I2: a write commits where none is accepted any more"),
        ({"generations": ("control", "target")}, Scene(()), "I4: attempt 1 changes something that is attempt 2's"),
        ({"waits_for_maps": False}, Scene(()), "I5"),
    ],
    ids=["I2", "I4", "I5"],
)
def test_a_breach_is_noticed_before_there_is_harm(left_out, scene, breach):
    with pytest.raises(Broken, match=breach):
        explore(Scene(scene.clients, protocol=Protocol(**left_out)))

"""
The model of a move: all its states, one after the other, and what must hold in each.

What is left out, and why that is sound: a kill is a mover that never acts again, so it needs no action of its own, and
neither does ending a mover's sessions. An effect within one transaction is one action. Verification is left out on
purpose: the protocol has to be right without it.
"""

from __future__ import annotations

import gc
from collections import deque
from collections.abc import Iterator
from dataclasses import replace

from tests.rebalance.clients import client_moves, waits_with_old_map
from tests.rebalance.movers import mover_moves
from tests.rebalance.world import WRITABLE, Scene, Violation, World

Moves = Iterator[tuple[str, World]]
FINAL = ("done", "aborted")


class Broken(Exception):
    """The protocol is broken; the message tells how, and the way there."""


def successors(world: World, scene: Scene) -> Moves:
    """Yield every world that can be the next, with what leads to it."""
    for index in range(len(world.movers)):
        yield from mover_moves(world, index, scene)
    for index in range(len(scene.clients)):
        yield from client_moves(world, index, scene)
    for before, after in scene.orders:
        # One rollback: another would be the same again, with higher numbers.
        again = after == "rollback" and world.source == 1
        if world.wanted == before and world.phase not in FINAL and not again:
            yield f"the operator wants {after}", world._replace(wanted=after)
    if world.old_maps and world.phase == "window" and not waits_with_old_map(world):
        yield "maps grow old", world._replace(old_maps=False)


def check(world: World) -> None:
    """
    Assert what must hold in every state.

    Raises:
        Violation: It does not.
    """
    owner = world.epoch % 2
    open_shards = [shard for shard in (0, 1) if world.state(shard) in WRITABLE]
    if len(open_shards) > 1:
        raise Violation("I1: both shards accept writes")
    if open_shards and open_shards != [owner]:
        raise Violation("I3: a shard accepts writes that the map does not name")
    if world.rows[owner] != world.truth:
        raise Violation(f"lost write: the owner has {world.rows[owner]}, acknowledged was {world.truth}")


def explore(scene: Scene) -> dict[World, tuple[World, str] | None]:
    """
    Return all states that can be reached, each with one that leads to it.

    Raises:
        Broken: An invariant does not hold in one of them, or a mover that is left alone does not come to an end.
    """
    # There are no cycles to collect, and a million objects to look at for them.
    gc.disable()
    try:
        return _explored(scene)
    finally:
        gc.enable()


def _explored(scene: Scene) -> dict[World, tuple[World, str] | None]:
    first = scene.beginning()
    reached: dict[World, tuple[World, str] | None] = {first: None}
    queue = deque([first])
    ends: set[World] = set()
    while queue:
        world, label = queue.popleft(), ""
        try:
            for label, after in successors(world, scene):
                if after not in reached:
                    reached[after] = (world, label)
                    check(after)
                    queue.append(after)
            label = "a new mover takes the move, alone"
            stored = _left_alone(world)
            if stored not in ends:
                ends.add(stored)
                _recover(stored, scene)
        except Violation as violation:
            raise Broken("\n".join([str(violation), *_way(world, reached), label])) from violation
    return reached


def _way(world: World, reached: dict[World, tuple[World, str] | None]) -> list[str]:
    steps = []
    while (before := reached.get(world)) is not None:
        world, label = before
        steps.append(label)
    return steps[::-1]


def _left_alone(world: World) -> World:
    """Return what is stored, with a new mover alone: the others are dead, and open transactions rolled back."""
    return world._replace(movers=(None,), clients=())


def _recover(world: World, scene: Scene) -> None:
    """Let one mover go on to the end, and assert that all is on one side then (I6)."""
    alone = replace(scene, clients=(), orders=(), movers=1, torn=False)
    if world.wanted == "pause":
        world = world._replace(wanted="go")
    for _ in range(300):
        after = next(successors(world, alone), None)
        if after is None:
            break
        world = after[1]
        check(world)
    owner = world.epoch % 2
    other = 1 - owner
    if world.phase not in FINAL or world.state(owner) != "owned":
        raise Violation(f"stuck: left alone, the move ends as {world}")
    # An attempt that slept since the beginning may have made a row after all; nothing is in it.
    if world.state(other) not in (None, "importing") or world.rows[other] != (None, None):
        raise Violation(f"I6: left alone, the move leaves {world.fences[other]} and {world.rows[other]}")

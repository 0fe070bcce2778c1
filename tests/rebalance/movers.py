"""
The movers in the model: what they see, which step they choose, and whether they keep to what they may do.

Which step is next is asked of `next_step` itself, and the conditions of a step are those that it declares. After each
action a mover may never act again (it was killed), or act again after others have gone on (it was paused).
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from operator import attrgetter
from typing import Any

from sharding.bucket_states import BucketState
from sharding.errors import MoveConflict, Superseded
from sharding.rebalance.move_state import FenceRow, Seen, next_step
from sharding.rebalance.phases import Phase, Wanted
from sharding.rebalance.steps import Step
from tests.rebalance.mover_actions import act, with_mover
from tests.rebalance.world import STOPPED, WRITABLE, Mover, Protocol, Row, Scene, Violation, World

Moves = Iterator[tuple[str, World]]
#: Steps by their repr(), which is what a state of the model holds.
STEPS: dict[str, Step] = {}


def facts(world: World, fences: tuple[Row | None, ...], protocol: Protocol) -> tuple[Any, ...]:
    """Return what a mover knows that has read the fences, and now reads the control database."""
    source, target = fences[world.source], fences[1 - world.source]
    old_maps = world.old_maps and protocol.waits_for_maps
    return (world.phase, world.wanted, world.generation, world.epoch, world.source, old_maps, source, target)


@cache
def chosen(phase: str, wanted: str, generation: int, epoch: int, source: int, old_maps: bool, *rows: Row | None) -> str:
    """Return the repr() of the next step, "None" if there is none, or "overtaken"."""
    fences = [FenceRow(BucketState(row[0]), row[1], row[2]) if row else None for row in rows]
    seen = Seen(
        bucket=0,
        source=str(source),
        target=str(1 - source),
        phase=Phase(phase),
        wanted=Wanted(wanted),
        generation=generation,
        owner=str(epoch % 2),
        at_source=fences[0],
        at_target=fences[1],
        window_open=False,
        old_maps=old_maps,
    )
    try:
        step = next_step(seen)
    except Superseded:
        return "overtaken"
    except MoveConflict as error:
        raise Violation(f"stuck: {error}") from error
    if step is not None:
        STEPS[repr(step)] = step
    return repr(step)


def mover_moves(world: World, index: int, scene: Scene) -> Moves:
    """Yield what a mover may do next, and what becomes of it."""
    mover = world.movers[index]
    name = f"mover {index}"
    if mover is None:
        if world.phase not in ("done", "aborted") and (index == 0 or world.movers[index - 1] is not None):
            generation = world.generation + 1
            yield f"{name} takes the move", with_mover(world._replace(generation=generation), index, Mover(generation))
    elif mover.step is None:
        if mover != STOPPED:
            yield from _look(world, index, mover, scene.torn, scene.protocol)
    else:
        for what, after in act(world, index, mover, STEPS[mover.step], scene.protocol):
            if scene.strict:
                _check_generation(world, after, mover)
                if world.rows != after.rows and mover.step in ("Purge()", "Clear()"):
                    _check_deletion(world, mover)
            yield f"{name} {mover.step} {what}", after


def _look(world: World, index: int, mover: Mover, torn: bool, protocol: Protocol) -> Moves:
    """Read both fences, and the control database last, at one instant or at three."""
    seen, last = mover.memory or (), protocol.reads_move_last
    if torn and mover.at < 2:
        part = (world.fences[mover.at],)
        if not last and mover.at == 0:
            part = facts(world, world.fences, protocol)[:6]
        elif not last:
            part = (world.fences[seen[4]],)
        yield f"mover {index} reads", with_mover(world, index, mover._replace(at=mover.at + 1, memory=(*seen, *part)))
        return
    read = facts(world, seen if torn and last else world.fences, protocol)
    if torn and not last:
        read = (*seen, world.fences[1 - seen[4]])
    if read[2] != mover.generation:
        yield f"mover {index} is overtaken", with_mover(world, index, STOPPED)
        return
    step = chosen(*read)
    if step == "overtaken":
        yield f"mover {index} is overtaken", with_mover(world, index, STOPPED)
    elif step != "None":
        yield f"mover {index} chooses {step}", with_mover(world, index, Mover(mover.generation, read[4], read[0], step))
    elif torn:
        # It waits, and looks again.
        yield f"mover {index} waits", with_mover(world, index, Mover(mover.generation))


_ON_SHARDS = (attrgetter("fences"), attrgetter("rows"), attrgetter("notes"))


def _check_generation(world: World, after: World, mover: Mover) -> None:
    if all(part(world) is part(after) for part in _ON_SHARDS):
        return
    for shard, row in enumerate(world.fences):
        changed = any(part(world)[shard] != part(after)[shard] for part in _ON_SHARDS)
        if changed and row is not None and row[1] != mover.generation and not _may_take(mover, row):
            raise Violation(f"I4: attempt {mover.generation} changes something that is attempt {row[1]}'s")


def _check_deletion(world: World, mover: Mover) -> None:
    other = 1 - mover.source if mover.step == "Purge()" else mover.source
    if world.epoch % 2 != other or world.state(other) not in WRITABLE or world.old_maps:
        raise Violation("I5: rows are deleted that may be needed")


def _may_take(mover: Mover, row: Row) -> bool:
    return str(mover.step).startswith(("Claim", "Prepare")) and row[1] < mover.generation

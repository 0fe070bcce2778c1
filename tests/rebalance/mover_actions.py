"""
What each step of a mover does in the model, action by action, as `sharding.rebalance.steps` and its neighbours say.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sharding.rebalance.steps import Claim, Side, Step
from tests.rebalance.clients import holds_lock
from tests.rebalance.world import KEYS, STOPPED, Mover, Protocol, World, with_item

Moves = Iterator[tuple[str, World]]


def with_mover(world: World, index: int, mover: Mover) -> World:
    """Return the world with a mover elsewhere in its work."""
    return world._replace(movers=with_item(world.movers, index, mover))


class Actor:
    """One mover at one action of one step."""

    def __init__(self, world: World, index: int, mover: Mover, step: Step, protocol: Protocol) -> None:
        self.world, self.index, self.mover, self.step, self.protocol = world, index, mover, step, protocol
        self.source, self.target = mover.source, 1 - mover.source
        self.shard = self.target if step.at is Side.TARGET else self.source

    def then(self, what: str, at: int, memory: Any = None, **changes: Any) -> Moves:
        """Yield the world after an action, with the mover at the next one."""
        yield what, with_mover(self.world._replace(**changes), self.index, self.mover._replace(at=at, memory=memory))

    def finish(self, what: str, **changes: Any) -> Moves:
        """Yield the world after the last action of the step."""
        yield what, with_mover(self.world._replace(**changes), self.index, Mover(self.mover.generation))

    def stop(self) -> Moves:
        """Yield the world in which the mover has found out that it was overtaken."""
        yield "is refused", with_mover(self.world, self.index, STOPPED)

    def allowed(self, shard: int, states: Any = None) -> bool:
        """Return whether the fence of a shard lets this attempt change something."""
        row = self.world.fences[shard]
        if row is None:
            return states is not None and None in states
        current = row[1] == self.mover.generation or not self.compares(shard)
        return current and (states is None or row[0] in states)

    def compares(self, shard: int) -> bool:
        """Return whether an attempt's generation is compared there."""
        return ("source" if shard == self.source else "target") in self.protocol.generations

    def has_move(self) -> bool:
        """Return whether the move's row is still as this attempt knows it."""
        current = self.world.generation == self.mover.generation or "control" not in self.protocol.generations
        return current and self.world.phase == self.mover.phase

    def fence_with(self, shard: int, state: str | None, epoch: int | None = None) -> Any:
        row = self.world.fences[shard]
        if state is None:
            return with_item(self.world.fences, shard, None)
        if epoch is None:
            epoch = row[2] if row else 0
        # Not the member of the enumeration, whose hash is slow.
        made = (str(state), self.mover.generation, epoch)
        return with_item(self.world.fences, shard, made)

    def change_fence(self, **changes: Any) -> Moves:
        """Compare and set the fence as the step declares, behind a barrier if it says so."""
        if self.step.barrier and self.drains() and holds_lock(self.world, self.shard):
            return
        if not self.allowed(self.shard, self.step.before):
            yield from self.stop()
            return
        epoch = self.world.epoch if type(self.step).__name__ == "Own" else None
        changes["fences"] = self.fence_with(self.shard, self.step.after, epoch)
        what = f"makes the bucket {self.step.after} on {self.shard}"
        yield from self.then(what, 1, **changes) if self.step.leads_to else self.finish(what, **changes)

    def drains(self) -> bool:
        return self.protocol.first_drain if self.step.after == "capturing" else self.protocol.second_drain

    def record(self, **changes: Any) -> Moves:
        """Compare and set the phase."""
        if self.has_move():
            yield from self.finish("is recorded", phase=str(self.step.leads_to), **changes)
        else:
            yield from self.stop()

    def written(self, rows: dict[int, Any], shard: int) -> Any:
        changed = tuple(rows.get(key, self.world.rows[shard][key]) for key in KEYS)
        return with_item(self.world.rows, shard, changed)

    def drain(self) -> Moves:
        """Read notes, read rows, write rows, delete notes; `at` is 0 to 3."""
        world, at = self.world, self.mover.at
        if at == 0:
            yield from self.then("reads notes", 1, world.notes[self.source])
        elif at == 1:
            read = {key: world.rows[self.source][key] for _, key in self.mover.memory}
            yield from self.then("reads rows", 2, (self.mover.memory, tuple(read.items())))
        elif not self.allowed(self.target if at == 2 else self.source, ["importing"] if at == 2 else None):
            yield from self.stop()
        elif at == 2:
            notes, read = self.mover.memory
            yield from self.then("writes rows", 3, notes, rows=self.written(dict(read), self.target))
        else:
            left = world.notes[self.source] - self.mover.memory
            if not self.protocol.exact_notes:
                left = frozenset(note for note in left if note[0] > max(self.mover.memory)[0])
            yield from self.then("deletes notes", 0, notes=with_item(world.notes, self.source, left))


def _claim(actor: Actor) -> Moves:
    assert isinstance(actor.step, Claim)
    shard = actor.source if actor.step.side is Side.SOURCE else actor.target
    row = actor.world.fences[shard]
    if row is None or row[1] >= actor.mover.generation:
        # It has gone, or is a later attempt's: look again.
        yield from actor.finish("finds nothing to claim")
    else:
        fences = with_item(actor.world.fences, shard, (row[0], actor.mover.generation, row[2]))
        yield from actor.finish(f"claims {shard}", fences=fences)


def _prepare(actor: Actor) -> Moves:
    row = actor.world.fences[actor.target]
    if actor.mover.at == 0:
        # Whoever inserts the row first, the higher generation gets it.
        if row is not None and (
            row[0] != "importing" or (row[1] > actor.mover.generation and actor.compares(actor.target))
        ):
            yield from actor.stop()
        else:
            yield from actor.then("makes a row", 1, fences=actor.fence_with(actor.target, "importing"))
    elif actor.mover.at == 1:
        if actor.allowed(actor.target, ["importing"]):
            rows = with_item(actor.world.rows, actor.target, (None, None))
            yield from actor.then("deletes rows", 2, rows=rows, copied=0)
        else:
            yield from actor.stop()
    else:
        yield from actor.record()


def _capture(actor: Actor) -> Moves:
    if actor.mover.at:
        yield from actor.record()
    elif actor.world.state(actor.source) == "owned":
        yield from actor.change_fence(notes=with_item(actor.world.notes, actor.source, frozenset()))
    else:
        yield from actor.change_fence()


def _copy(actor: Actor) -> Moves:
    world, key = actor.world, actor.world.copied
    if actor.mover.at == 0 and key == len(KEYS):
        yield from actor.record()
    elif actor.mover.at == 0:
        yield from actor.then("reads a chunk", 1, (key, world.rows[actor.source][key]))
    else:
        if not actor.protocol.one_at_a_time and world.notes[actor.source]:
            noted = {key: world.rows[actor.source][key] for _, key in world.notes[actor.source]}
            notes = with_item(world.notes, actor.source, frozenset())
            rows = actor.written(noted, actor.target)
            yield from actor.then("takes notes over meanwhile", 1, actor.mover.memory, rows=rows, notes=notes)
        if actor.allowed(actor.target, ["importing"]):
            key, value = actor.mover.memory
            yield from actor.then("writes a chunk", 0, rows=actor.written({key: value}, actor.target), copied=key + 1)
        else:
            yield from actor.stop()


def _catch_up(actor: Actor) -> Moves:
    if actor.mover.at == 0:
        notes = actor.world.notes[actor.source]
        if not notes or actor.protocol.drains_fenced:
            yield from actor.record()
        if not notes:
            return
    yield from actor.drain()


def _decide(actor: Actor) -> Moves:
    world, at = actor.world, actor.mover.at
    if at == 0 and (not world.notes[actor.source] or not actor.protocol.drains_fenced):
        at = 4 if actor.protocol.owns_after_decision else 6
        yield from actor.then("finds no notes", at)
    elif at < 4:
        yield from actor.drain()
    elif at == 6:
        yield from actor.then(
            "opens the target", 4, fences=actor.fence_with(actor.target, "capturing", world.epoch + 1)
        )
    elif not actor.has_move():
        yield from actor.stop()
    elif at == 5:
        yield from actor.finish("records it", phase="decided")
    elif actor.protocol.one_decision:
        yield from actor.finish("decides", phase="decided", epoch=world.epoch + 1, old_maps=True)
    else:
        yield from actor.then("changes the map", 5, epoch=world.epoch + 1, old_maps=True)


def _delete(actor: Actor) -> Moves:
    """Delete the rows of a bucket one by one, and then the row of the fence."""
    shard, at = actor.shard, actor.mover.at
    if not actor.allowed(shard, (*actor.step.before, *([] if actor.protocol.rows_before_fence else [None]))):
        yield from actor.stop()
        return
    order = ("row", "row", "fence") if actor.protocol.rows_before_fence else ("fence", "row", "row")
    if order[at] == "fence":
        changes = {"fences": actor.fence_with(shard, None)}
    else:
        key = at if actor.protocol.rows_before_fence else at - 1
        changes = {"rows": actor.written({key: None}, shard)}
    what = f"deletes a {order[at]} on {shard}"
    yield from actor.then(what, at + 1, **changes) if at < 2 else actor.finish(what, **changes)


def _restore(actor: Actor) -> Moves:
    yield from actor.change_fence(notes=with_item(actor.world.notes, actor.source, frozenset()))


def _settle(actor: Actor) -> Moves:
    yield from actor.change_fence(notes=with_item(actor.world.notes, actor.target, frozenset()))


def _reverse(actor: Actor) -> Moves:
    if actor.has_move():
        yield from actor.finish("is recorded", phase="catching_up", source=actor.target, wanted="go")
    else:
        yield from actor.stop()


_ACTIONS = {
    "Claim": _claim,
    "Prepare": _prepare,
    "Capture": _capture,
    "Copy": _copy,
    "CatchUp": _catch_up,
    "Decide": _decide,
    "Purge": _delete,
    "Clear": _delete,
    "Restore": _restore,
    "Settle": _settle,
    "Reverse": _reverse,
}


def act(world: World, index: int, mover: Mover, step: Step, protocol: Protocol) -> Moves:
    """Yield the next action of a step that a mover has chosen."""
    kind = type(step).__name__
    own = _ACTIONS.get(kind)
    actor = Actor(world, index, mover, step, protocol)
    if own is not None:
        yield from own(actor)
    elif step.at is None:
        yield from actor.record()
    elif mover.at == 0:
        yield from actor.change_fence()
    else:
        yield from actor.record()

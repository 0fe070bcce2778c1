"""
The application in the model: writers and readers, each of whose steps may fall anywhere between the mover's.

A transaction may stay open for as long as it likes, and a process may keep its map for as long as it likes: nothing
forces a client to act. Its state is a tuple: where it stands, the epoch of its map, and what it keeps in mind.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.rebalance.world import KEYS, SHOWING, WRITABLE, Client, Protocol, Scene, Violation, World, with_item

Moves = Iterator[tuple[str, World]]


def holds_lock(world: World, shard: int) -> bool:
    """Return whether an open transaction holds the bucket's shared lock on a shard."""
    return any(each[0] in ("locked", "wrote") and each[1] % 2 == shard for each in world.clients)


def client_moves(world: World, index: int, scene: Scene) -> Moves:
    """Yield what a client may do next, and what becomes of it."""
    local, client, protocol = world.clients[index], scene.clients[index], scene.protocol
    if client.kind == "fan_out":
        return _fan_out(world, index, local, protocol)
    if client.kind == "read":
        return _read(world, index, local)
    if client.kind == "snapshot_read":
        return _snapshot_read(world, index, local, protocol)
    return _write(world, index, scene)


def _now(world: World, index: int, *local: Any) -> World:
    return world._replace(clients=with_item(world.clients, index, local))


def _write(world: World, index: int, scene: Scene) -> Moves:
    """One UPDATE of one row, by its key; `out` is one that gives the row to another bucket."""
    place, epoch, *kept = world.clients[index]
    client, protocol = scene.clients[index], scene.protocol
    shard = epoch % 2
    name = f"client {index}"
    if place == "start":
        snapshot = client.kind == "snapshot_write" or not protocol.volatile
        if snapshot:
            yield f"{name} begins on {shard}", _now(world, index, "begun", epoch, world.state(shard))
        else:
            yield from _statement(world, index, scene, None)
    elif place == "begun":
        yield from _statement(world, index, scene, kept[0])
    elif place == "zero":
        yield f"{name} asks the fence of {shard} about no rows", _after_no_rows(world, index, client, protocol)
    elif place == "locked":
        yield f"{name} reads the fence of {shard}", _guarded(world, index, client, protocol, kept[0])
    elif place in ("wrote", "left"):
        yield f"{name} commits on {shard}", _committed(world, index, client, kept[0], scene.strict)


def _statement(world: World, index: int, scene: Scene, snapshot: str | None) -> Moves:
    client, epoch = scene.clients[index], world.clients[index][1]
    shard = epoch % 2
    if _row_is_locked(world, scene, shard, client.key):
        return
    if world.rows[shard][client.key] is None:
        yield f"client {index} touches no row on {shard}", _now(world, index, "zero", epoch)
    elif client.kind == "out" and not scene.protocol.checks_old:
        yield f"client {index} writes without a lock on {shard}", _now(world, index, "left", epoch, False)
    else:
        yield f"client {index} gets the lock on {shard}", _now(world, index, "locked", epoch, snapshot)


def _row_is_locked(world: World, scene: Scene, shard: int, key: int) -> bool:
    """Return whether a transaction that has written the row is open: another that wants to write it waits."""
    writers = zip(scene.clients, world.clients, strict=True)
    return any(
        local[0] in ("locked", "wrote", "left") and local[1] % 2 == shard and client.key == key
        for client, local in writers
    )


def _after_no_rows(world: World, index: int, client: Client, protocol: Protocol) -> World:
    epoch = world.clients[index][1]
    row = world.fences[epoch % 2]
    of_this_epoch = row is not None and (row[2] == epoch or not protocol.compares_epoch)
    believed = row is not None and row[0] in SHOWING and of_this_epoch
    if not believed and protocol.checks_zero_rows:
        return _now(world, index, "start", world.epoch)
    if world.truth[client.key] is not None:
        raise Violation("lost write: 'no such row' was believed, and there is one")
    return _now(world, index, "done", 0)


def _guarded(world: World, index: int, client: Client, protocol: Protocol, snapshot: str | None) -> World:
    epoch = world.clients[index][1]
    state = world.state(epoch % 2)
    if client.kind == "snapshot_write" and protocol.for_share:
        if state != snapshot:
            # Serialization failure: the application repeats its transaction.
            return _now(world, index, "start", world.epoch)
    elif snapshot is not None:
        state = snapshot
    if state not in WRITABLE:
        return _now(world, index, "start", world.epoch)
    return _now(world, index, "wrote", epoch, state == "capturing")


def _committed(world: World, index: int, client: Client, noted: bool, strict: bool) -> World:
    shard = world.clients[index][1] % 2
    if strict and world.state(shard) not in WRITABLE:
        raise Violation("I2: a write commits where none is accepted any more")
    value = None if client.kind == "out" else f"by {index}"
    notes = world.notes[shard] | {(index, client.key)} if noted else world.notes[shard]
    return _now(world, index, "done", 0)._replace(
        rows=with_item(world.rows, shard, with_item(world.rows[shard], client.key, value)),
        notes=with_item(world.notes, shard, notes),
        truth=with_item(world.truth, client.key, value),
    )


def _fan_out(world: World, index: int, local: tuple[Any, ...], protocol: Protocol) -> Moves:
    """All rows of both shards, asked at two instants; an answer is believed if each shows what the map says."""
    _, epoch, *answers = local
    for shard in KEYS:
        if answers[shard] == "-":
            seen = with_item(tuple(answers), shard, _answer(world, shard, epoch))
            yield f"client {index} asks {shard} for all rows", _now(world, index, "ask", epoch, *seen)
    if "-" in answers:
        return
    owner, other = answers[epoch % 2], answers[1 - epoch % 2]
    if protocol.compares_shown and (owner not in ("rows", "wrong rows") or other not in ("none", "hidden rows")):
        yield f"client {index} reloads its map", _now(world, index, "ask", world.epoch, "-", "-")
        return
    if (owner, other) != ("rows", "none") and (other, owner) != ("rows", "none"):
        raise Violation(f"wrong answer: the shards answered {answers}")
    yield f"client {index} has an answer", _now(world, index, "ask", epoch, "-", "-")


def _answer(world: World, shard: int, epoch: int) -> str:
    """Return what a shard answers: whether it says that it shows the bucket, and which rows come."""
    state, rows = world.state(shard), world.rows[shard]
    if state in SHOWING:
        # With an old map, a frozen copy may be seen: whole, but not of this instant.
        whole = all((row is None) == (true is None) for row, true in zip(rows, world.truth, strict=True))
        return "rows" if (rows == world.truth if epoch == world.epoch else whole) else "wrong rows"
    # A bucket without a row in the fence is not hidden.
    return "hidden rows" if state is None and any(row is not None for row in rows) else "none"


def _read(world: World, index: int, local: tuple[Any, ...]) -> Moves:
    """Both rows of the bucket, from the shard that the map names; no statement is older than the purge allows."""
    place, epoch = local
    shard = epoch % 2
    if place == "route":
        if epoch != world.epoch:
            yield f"client {index} reloads its map", _now(world, index, "route", world.epoch)
        if epoch == world.epoch or world.old_maps:
            yield f"client {index} sends a query to {shard}", _now(world, index, "sent", epoch)
    else:
        found = [row is not None for row in world.rows[shard]]
        if not any(found) and world.state(shard) not in SHOWING:
            yield f"client {index} does not believe in no rows", _now(world, index, "route", world.epoch)
        elif found != [true is not None for true in world.truth]:
            raise Violation(f"wrong answer: of both rows, shard {shard} sent {found}")
        else:
            yield f"client {index} has an answer", _now(world, index, "route", epoch)


def _snapshot_read(world: World, index: int, local: tuple[Any, ...], protocol: Protocol) -> Moves:
    """Both rows of the bucket, in a transaction with a snapshot of shard 1, which it took for another query."""
    place, epoch, *snapshot = local
    if place == "outside":
        yield f"client {index} begins on 1", _now(world, index, "inside", epoch, world.state(1), world.rows[1])
        return
    state, rows = snapshot
    found = [row is not None for row in rows]
    if epoch != world.epoch:
        yield f"client {index} reloads its map", _now(world, index, "inside", world.epoch, state, rows)
    if epoch % 2 == 1:
        if state not in SHOWING and (protocol.checks_snapshots or not any(found)):
            yield f"client {index} has to repeat its block", _now(world, index, "outside", epoch)
        elif found != [true is not None for true in world.truth]:
            raise Violation(f"wrong answer: of both rows, a snapshot of shard 1 had {found}")
        else:
            yield f"client {index} has an answer", _now(world, index, "outside", epoch)


def waits_with_old_map(world: World) -> bool:
    """Return whether a query is under way that was sent by an old map."""
    return any(each[0] == "sent" and each[1] != world.epoch for each in world.clients)

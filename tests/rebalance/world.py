"""
One state of the model of a move: what is stored, and where each process stands that has to do with the bucket.

Two shards, 0 and 1; the bucket has two rows, and is shard 0's at epoch 0. Each decision exchanges owner and other, so
the owner at an epoch is `epoch % 2`. Values are plain strings, tuples and numbers, since states are hashed very often.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

#: state, generation and epoch of the bucket's row in a fence.
Row = tuple[str, int, int]

KEYS = (0, 1)
WRITABLE = ("owned", "capturing")
SHOWING = ("owned", "capturing", "fenced")


class Violation(Exception):
    """An invariant does not hold."""


class Mover(NamedTuple):
    """One attempt; `step` is None while it is about to look what is next."""

    generation: int
    source: int = 0
    #: The phase in which the step was chosen.
    phase: str = ""
    step: str | None = None
    #: How many of the step's actions are done, and what it keeps in mind between them.
    at: int = 0
    memory: Any = None


#: A mover that found that it was overtaken.
STOPPED = Mover(-1)


class World(NamedTuple):
    """All that is stored, and all that processes keep in mind."""

    # The control database.
    phase: str
    wanted: str
    generation: int
    epoch: int
    source: int
    #: Whether maps from before the last decision may be in use.
    old_maps: bool
    # The shards.
    fences: tuple[Row | None, Row | None]
    rows: tuple[tuple[Any, Any], tuple[Any, Any]]
    #: How many rows have been copied.
    copied: int
    #: Who noted which key, on each shard.
    notes: tuple[frozenset[tuple[int, int]], frozenset[tuple[int, int]]]
    #: What one database would hold, after all writes that were acknowledged.
    truth: tuple[Any, Any]
    # The processes.
    movers: tuple[Mover | None, ...]
    clients: tuple[tuple[Any, ...], ...]

    def state(self, shard: int) -> str | None:
        row = self.fences[shard]
        return row[0] if row else None


@dataclass(frozen=True)
class Protocol:
    """The protocol as it is, and what can be left out of it."""

    first_drain: bool = True
    second_drain: bool = True
    #: A guard in a transaction with a snapshot locks the fence's row, which fails if it has changed since.
    for_share: bool = True
    #: The guard reads the fence when it has the lock, not as it was when the statement began.
    volatile: bool = True
    #: The guard looks at the bucket that a row leaves, too.
    checks_old: bool = True
    #: Where an attempt's generation is compared: in the control database, on the source, on the target.
    generations: tuple[str, ...] = ("control", "source", "target")
    #: Notes are read after the barrier.
    drains_fenced: bool = True
    #: Just the notes that were taken over are deleted, not all up to the highest.
    exact_notes: bool = True
    #: Nothing is taken over between the reading and the writing of a chunk.
    one_at_a_time: bool = True
    #: A mover reads the fences, and the move's row after them.
    reads_move_last: bool = True
    one_decision: bool = True
    waits_for_maps: bool = True
    #: A statement that touches no row asks the fence, and whether the fence is of the sender's epoch.
    checks_zero_rows: bool = True
    compares_epoch: bool = True
    #: A statement in a transaction with a snapshot asks the fence, as of the snapshot, whatever it finds.
    checks_snapshots: bool = True
    owns_after_decision: bool = True
    rows_before_fence: bool = True
    #: A statement for several shards compares what they show with its map.
    compares_shown: bool = True


@dataclass(frozen=True)
class Client:
    """What one process of the application does: `kind` is one of START."""

    kind: str
    key: int = 0
    #: Of the map that it has at the beginning; -1 is one of long ago, when the bucket was shard 1's.
    epoch: int = 0


@dataclass(frozen=True)
class Scene:
    """What is explored."""

    clients: tuple[Client, ...]
    movers: int = 2
    #: What the operator may want, and from what on.
    orders: tuple[tuple[str, str], ...] = (("go", "abort"),)
    #: Whether a mover reads the two fences and the control database at three instants.
    torn: bool = False
    #: Whether I2 and I4 are asserted, too: without them it is seen what harm comes of a breach.
    strict: bool = True
    protocol: Protocol = Protocol()

    def beginning(self) -> World:
        """Return the state in which the move has been planned."""
        return World(
            phase="planned",
            wanted="go",
            generation=0,
            epoch=0,
            source=0,
            old_maps=False,
            fences=(("owned", 0, 0), None),
            rows=(("old", "old"), (None, None)),
            copied=0,
            notes=(frozenset(), frozenset()),
            truth=("old", "old"),
            movers=(None,) * self.movers,
            clients=tuple(
                (START[each.kind], each.epoch) + (("-", "-") if each.kind == "fan_out" else ()) for each in self.clients
            ),
        )


#: Where each kind of client begins.
START = {
    "write": "start",
    "snapshot_write": "start",
    "out": "start",
    "fan_out": "ask",
    "read": "route",
    "snapshot_read": "outside",
}


def _first(client: Client) -> tuple[Any, ...]:
    unanswered = ("-", "-") if client.kind == "fan_out" else ()
    return (START[client.kind], client.epoch, *unanswered)


def with_item(items: tuple[Any, ...], index: int, value: Any) -> tuple[Any, ...]:
    """Return the items with another one at one place."""
    return (*items[:index], value, *items[index + 1 :])

"""
What a mover does next, from what is stored alone, so that it goes on where one was killed that it knows nothing of.

A mover reads the bucket's row in both fences, and then, in one transaction of the control database, the move's row and
the bucket's owner; asks `next_step`; does what it says; and reads again. It keeps nothing in mind from one step to the
next, but for that it does not look between Fence and Own, where the application waits. The order matters: a move's row
that still has the mover's generation says that nobody had overtaken it when it read the fences. The other way round, an
overtaken mover would take what others do for a contradiction.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharding.bucket_states import WRITABLE, BucketState
from sharding.errors import MoveConflict, Superseded
from sharding.rebalance import decided_steps, steps, undecided_steps
from sharding.rebalance.phases import FINAL, UNDECIDED, Phase, Wanted
from sharding.rebalance.steps import ABSENT, Side, Step


@dataclass(frozen=True, slots=True)
class FenceRow:
    """What one shard says of the bucket."""

    state: BucketState
    generation: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Seen:
    """What is stored about a move, in the control database and on its two shards."""

    bucket: int
    source: str
    target: str
    phase: Phase
    wanted: Wanted
    #: Of the attempt that has the move in hand.
    generation: int
    #: The owner according to the bucket map.
    owner: str
    at_source: FenceRow | None
    at_target: FenceRow | None
    #: Whether it is too early for the purge: the move's `window_ends` is not over.
    window_open: bool = True
    #: Whether a process may have a map from before the decision: less than MAP_TTL and a long statement ago.
    old_maps: bool = True

    def state(self, side: Side) -> BucketState | None:
        """Return what the bucket is on one of the shards; ABSENT if its fence has no row of it."""
        row = self.at_source if side is Side.SOURCE else self.at_target
        return row.state if row is not None else ABSENT


_O, _C, _F = BucketState.OWNED, BucketState.CAPTURING, BucketState.FENCED
_M, _I = BucketState.MOVED, BucketState.IMPORTING

#: What a bucket can be on the source and on the target in each phase, if nobody has meddled with the fences.
POSSIBLE: dict[Phase, tuple[frozenset[BucketState | None], frozenset[BucketState | None]]] = {
    Phase.PLANNED: (frozenset({_O}), frozenset({ABSENT, _I})),
    Phase.PREPARING: (frozenset({_O}), frozenset({ABSENT, _I})),
    Phase.CAPTURING: (frozenset({_O, _C}), frozenset({_I})),
    Phase.COPYING: (frozenset({_C}), frozenset({_I})),
    # In a rollback the target begins with what it kept.
    Phase.CATCHING_UP: (frozenset({_C}), frozenset({_I, _M})),
    Phase.VERIFYING: (frozenset({_C}), frozenset({_I})),
    Phase.FENCING: (frozenset({_C, _F}), frozenset({_I})),
    Phase.FINISHING: (frozenset({_F, _C}), frozenset({_I})),
    Phase.DECIDED: (frozenset({_F}), frozenset({_I, _C})),
    Phase.OWNING: (frozenset({_F, _M}), frozenset({_C})),
    Phase.FORWARDING: (frozenset({_M}), frozenset({_C})),
    Phase.WINDOW: (frozenset({_M}), frozenset({_C})),
    # An attempt that slept since before Prepare may make a row where there is none any more; see Purge.
    Phase.PURGING: (frozenset({_M, _I, ABSENT}), frozenset({_C, _O})),
    Phase.ABORTING: (frozenset({_O, _C, _F}), frozenset({_I, _M, ABSENT})),
}

#: Where the phase alone says what is next.
_NEXT: dict[Phase, Step] = {
    Phase.PLANNED: undecided_steps.Begin(),
    Phase.PREPARING: undecided_steps.Prepare(),
    Phase.CAPTURING: undecided_steps.Capture(),
    Phase.COPYING: undecided_steps.Copy(),
    Phase.VERIFYING: undecided_steps.Verify(),
    Phase.FENCING: undecided_steps.Fence(),
    Phase.DECIDED: decided_steps.Own(),
    Phase.OWNING: decided_steps.Forward(),
    Phase.FORWARDING: decided_steps.Announce(),
}


def next_step(seen: Seen) -> Step | None:
    """
    Return the next step of a move, or None if there is nothing to do: it is over, or is to wait.

    Raises:
        Superseded: A fence knows a later attempt than the move's row did when it was read.
        MoveConflict: The fences, the map and the phase contradict each other.
    """
    if seen.phase in FINAL:
        return None
    _check_possible(seen)
    return _claim(seen) or _step(seen)


def _claim(seen: Seen) -> Step | None:
    """Return the step that takes a fence from an older attempt; nothing that its state says is sure before."""
    for side, row in ((Side.SOURCE, seen.at_source), (Side.TARGET, seen.at_target)):
        if row is not None and row.generation < seen.generation:
            return steps.Claim(side)
    return None


def _step(seen: Seen) -> Step | None:
    if seen.phase in UNDECIDED:
        if seen.wanted in (Wanted.ABORT, Wanted.ROLLBACK):
            return undecided_steps.Abort()
        if seen.wanted is Wanted.PAUSE:
            return _pausing(seen)
    match seen.phase:
        case Phase.CATCHING_UP:
            return (
                undecided_steps.Reopen() if seen.state(Side.TARGET) is BucketState.MOVED else undecided_steps.CatchUp()
            )
        case Phase.FINISHING:
            # Open again: the phase was not recorded any more.
            return (
                undecided_steps.Decide() if seen.state(Side.SOURCE) is BucketState.FENCED else undecided_steps.Unfence()
            )
        case Phase.WINDOW:
            return _in_window(seen)
        case Phase.PURGING:
            return _purging(seen)
        case Phase.ABORTING:
            return _aborting(seen)
        case _:
            return _NEXT[seen.phase]


def _pausing(seen: Seen) -> Step | None:
    """Return what is to be done before a move may rest: out of the phases in which nobody can write the bucket."""
    closes = seen.phase in {Phase.FENCING, Phase.FINISHING}
    return undecided_steps.Unfence() if closes else None


def _in_window(seen: Seen) -> Step | None:
    if seen.old_maps or seen.wanted is Wanted.PAUSE:
        return None
    if seen.wanted is Wanted.ROLLBACK:
        return decided_steps.Reverse()
    return None if seen.window_open else decided_steps.EndWindow()


def _purging(seen: Seen) -> Step | None:
    if seen.wanted is Wanted.PAUSE:
        return None
    if seen.state(Side.TARGET) is not BucketState.OWNED:
        return decided_steps.Settle()
    return decided_steps.Close() if seen.at_source is ABSENT else decided_steps.Purge()


def _aborting(seen: Seen) -> Step:
    # The source first: the application waits for it.
    if seen.state(Side.SOURCE) is not BucketState.OWNED:
        return undecided_steps.Restore()
    return undecided_steps.CloseAborted() if seen.at_target is ABSENT else undecided_steps.Clear()


def _check_possible(seen: Seen) -> None:
    for alias, row in ((seen.source, seen.at_source), (seen.target, seen.at_target)):
        if row is not None and row.generation > seen.generation:
            raise Superseded(
                f"Attempt {seen.generation} at the move of bucket {seen.bucket} from {seen.source!r} to "
                f"{seen.target!r} has been overtaken by attempt {row.generation}. Nothing is to be done: the later one "
                f"goes on with the move.",
                bucket=seen.bucket,
                alias=alias,
                generation=seen.generation,
                found=row.generation,
                state=row.state,
            )
    if all(seen.state(side) in WRITABLE for side in Side):
        raise _conflict(seen, "both shards accept writes of the bucket")
    decided = seen.phase not in UNDECIDED and seen.phase is not Phase.ABORTING
    expected = seen.target if decided else seen.source
    if seen.owner != expected:
        raise _conflict(seen, f"in this phase the bucket is {expected!r}'s")
    for side, states in zip(Side, POSSIBLE[seen.phase], strict=True):
        if seen.state(side) not in states:
            wanted = " or ".join(sorted(state or "absent" for state in states))
            raise _conflict(seen, f"in this phase it is {wanted} on the {side}")


def _conflict(seen: Seen, reason: str) -> MoveConflict:
    states = {side: seen.state(side) or "absent" for side in Side}
    return MoveConflict(
        f"The move of bucket {seen.bucket} from {seen.source!r} to {seen.target!r} cannot go on: {reason}. Its phase is"
        f" {seen.phase.value!r}, the bucket map names {seen.owner!r}, and the bucket is {states[Side.SOURCE]} on"
        f" {seen.source!r} and {states[Side.TARGET]} on {seen.target!r}. Somebody has changed a fence or restored a"
        f" database: compare the rows of both shards, and make the fences agree with the map, before the move goes on.",
        bucket=seen.bucket,
        phase=seen.phase.value,
        owner=seen.owner,
        source_state=states[Side.SOURCE],
        target_state=states[Side.TARGET],
    )

"""
What a mover does next: from facts alone, the same for one that goes on and one that takes over.
"""

from __future__ import annotations

import inspect
import re
from dataclasses import replace

import pytest

from sharding.bucket_states import WRITABLE, BucketState
from sharding.errors import MoveConflict, Superseded
from sharding.rebalance import decided_steps, steps, undecided_steps
from sharding.rebalance.move_state import POSSIBLE, FenceRow, Seen, next_step
from sharding.rebalance.phases import FINAL, UNDECIDED, Phase, Wanted
from sharding.rebalance.steps import Side, Step

ATTEMPT = 7


def row(state, generation=ATTEMPT):
    return FenceRow(BucketState(state), generation, epoch=3) if state else None


def seen(phase, at_source, at_target, wanted=Wanted.GO, **facts):
    """Return what is stored about a move of bucket 5, with the owner that the phase asks for."""
    decided = phase not in (*UNDECIDED, Phase.ABORTING)
    owner = "shard_b" if decided else "shard_a"
    facts = {"owner": owner, "window_open": True, "old_maps": False, **facts}
    return Seen(
        bucket=5,
        source="shard_a",
        target="shard_b",
        phase=phase,
        wanted=wanted,
        generation=ATTEMPT,
        at_source=row(at_source),
        at_target=row(at_target),
        **facts,
    )


#: From the plan to the end: what is stored, and what comes next.
WAY = [
    (Phase.PLANNED, "owned", None, undecided_steps.Begin()),
    (Phase.PREPARING, "owned", None, undecided_steps.Prepare()),
    (Phase.PREPARING, "owned", "importing", undecided_steps.Prepare()),
    (Phase.CAPTURING, "owned", "importing", undecided_steps.Capture()),
    (Phase.CAPTURING, "capturing", "importing", undecided_steps.Capture()),
    (Phase.COPYING, "capturing", "importing", undecided_steps.Copy()),
    (Phase.CATCHING_UP, "capturing", "moved", undecided_steps.Reopen()),
    (Phase.CATCHING_UP, "capturing", "importing", undecided_steps.CatchUp()),
    (Phase.VERIFYING, "capturing", "importing", undecided_steps.Verify()),
    (Phase.FENCING, "capturing", "importing", undecided_steps.Fence()),
    (Phase.FENCING, "fenced", "importing", undecided_steps.Fence()),
    (Phase.FINISHING, "fenced", "importing", undecided_steps.Decide()),
    (Phase.FINISHING, "capturing", "importing", undecided_steps.Unfence()),
    (Phase.DECIDED, "fenced", "importing", decided_steps.Own()),
    (Phase.DECIDED, "fenced", "capturing", decided_steps.Own()),
    (Phase.OWNING, "fenced", "capturing", decided_steps.Forward()),
    (Phase.OWNING, "moved", "capturing", decided_steps.Forward()),
    (Phase.FORWARDING, "moved", "capturing", decided_steps.Announce()),
    (Phase.WINDOW, "moved", "capturing", None),
    (Phase.PURGING, "moved", "capturing", decided_steps.Settle()),
    (Phase.PURGING, "moved", "owned", decided_steps.Purge()),
    (Phase.PURGING, "importing", "owned", decided_steps.Purge()),
    (Phase.PURGING, None, "owned", decided_steps.Close()),
    (Phase.DONE, None, "owned", None),
    (Phase.ABORTING, "fenced", "importing", undecided_steps.Restore()),
    (Phase.ABORTING, "capturing", "importing", undecided_steps.Restore()),
    (Phase.ABORTING, "owned", "importing", undecided_steps.Clear()),
    (Phase.ABORTING, "owned", None, undecided_steps.CloseAborted()),
    (Phase.ABORTED, "owned", None, None),
]


@pytest.mark.parametrize(("phase", "at_source", "at_target", "step"), WAY)
def test_the_way(phase, at_source, at_target, step):
    assert next_step(seen(phase, at_source, at_target)) == step


@pytest.mark.parametrize(("phase", "at_source", "at_target", "step"), [each for each in WAY if each[0] not in FINAL])
def test_fences_are_claimed_before_anything_else(phase, at_source, at_target, step):
    facts = seen(phase, at_source, at_target, wanted=Wanted.ABORT)
    if at_target:
        assert next_step(replace(facts, at_target=row(at_target, ATTEMPT - 1))) == steps.Claim(Side.TARGET)
    if at_source:
        later = replace(facts, at_source=row(at_source, ATTEMPT - 1), at_target=row(at_target, ATTEMPT - 1))
        assert next_step(later) == steps.Claim(Side.SOURCE)


@pytest.mark.parametrize("wanted", [Wanted.ABORT, Wanted.ROLLBACK])
@pytest.mark.parametrize(("phase", "at_source", "at_target", "step"), WAY)
def test_only_what_is_not_decided_is_aborted(phase, at_source, at_target, step, wanted):
    found = next_step(seen(phase, at_source, at_target, wanted))
    if phase in UNDECIDED:
        assert found == undecided_steps.Abort()
    elif phase is Phase.WINDOW and wanted is Wanted.ROLLBACK:
        assert found == decided_steps.Reverse()
    else:
        assert found == step


@pytest.mark.parametrize(("phase", "at_source", "at_target", "step"), WAY)
def test_a_pause_leaves_no_bucket_fenced(phase, at_source, at_target, step):
    """Nor in a phase in which it may be: movers take such a move in hand also if it is to pause."""
    found = next_step(seen(phase, at_source, at_target, Wanted.PAUSE))
    if phase in UNDECIDED:
        assert found == (undecided_steps.Unfence() if phase in {Phase.FENCING, Phase.FINISHING} else None)
    elif phase is Phase.PURGING:
        assert found is None
    else:
        assert found == step


@pytest.mark.parametrize(
    ("wanted", "window_open", "old_maps", "step"),
    [
        (Wanted.GO, True, False, None),
        (Wanted.GO, False, False, decided_steps.EndWindow()),
        (Wanted.GO, False, True, None),
        (Wanted.ABORT, False, False, decided_steps.EndWindow()),
        (Wanted.PAUSE, False, False, None),
        (Wanted.ROLLBACK, True, False, decided_steps.Reverse()),
        (Wanted.ROLLBACK, False, False, decided_steps.Reverse()),
        (Wanted.ROLLBACK, True, True, None),
    ],
)
def test_the_window(wanted, window_open, old_maps, step):
    facts = seen(Phase.WINDOW, "moved", "capturing", wanted, window_open=window_open, old_maps=old_maps)
    assert next_step(facts) == step


REMEDY = (
    " Somebody has changed a fence or restored a database: compare the rows of both shards, and make the fences agree"
    " with the map, before the move goes on."
)


@pytest.mark.parametrize(
    ("facts", "reason", "is_so"),
    [
        (
            seen(Phase.COPYING, "capturing", "owned"),
            "both shards accept writes of the bucket",
            "Its phase is 'copying', the bucket map names 'shard_a', and the bucket is capturing on 'shard_a' and owned"
            " on 'shard_b'.",
        ),
        (
            seen(Phase.FINISHING, "fenced", "importing", owner="shard_c"),
            "in this phase the bucket is 'shard_a''s",
            "Its phase is 'finishing', the bucket map names 'shard_c', and the bucket is fenced on 'shard_a' and"
            " importing on 'shard_b'.",
        ),
        (
            seen(Phase.OWNING, None, "capturing"),
            "in this phase it is fenced or moved on the source",
            "Its phase is 'owning', the bucket map names 'shard_b', and the bucket is absent on 'shard_a' and capturing"
            " on 'shard_b'.",
        ),
    ],
    ids=["two owners", "another owner", "another state"],
)
def test_a_contradiction_is_told(facts, reason, is_so):
    with pytest.raises(MoveConflict) as caught:
        next_step(facts)
    assert str(caught.value) == (
        f"The move of bucket 5 from 'shard_a' to 'shard_b' cannot go on: {reason}. {is_so}{REMEDY}"
    )
    assert (caught.value.bucket, caught.value.phase, caught.value.owner) == (5, facts.phase.value, facts.owner)
    assert caught.value.source_state == (facts.at_source.state if facts.at_source else "absent")
    assert caught.value.target_state == facts.at_target.state


def test_nothing_but_what_is_possible_is_gone_on_with():
    """Every other pair of states is a contradiction, whatever is wanted."""
    states = [None, *BucketState]
    for phase, (on_source, on_target) in POSSIBLE.items():
        for at_source in states:
            for at_target in states:
                for wanted in Wanted:
                    facts = seen(phase, at_source, at_target, wanted)
                    if at_source in on_source and at_target in on_target and not {at_source, at_target} <= WRITABLE:
                        next_step(facts)
                    else:
                        with pytest.raises(MoveConflict):
                            next_step(facts)


def test_a_later_attempt_is_told():
    facts = replace(seen(Phase.COPYING, "capturing", "importing"), at_target=row("importing", 9))
    with pytest.raises(Superseded) as caught:
        next_step(facts)
    assert str(caught.value) == (
        "Attempt 7 at the move of bucket 5 from 'shard_a' to 'shard_b' has been overtaken by attempt 9. Nothing is to"
        " be done: the later one goes on with the move."
    )
    assert (caught.value.bucket, caught.value.alias, caught.value.generation) == (5, "shard_b", 7)
    assert (caught.value.found, caught.value.state) == (9, "importing")


@pytest.mark.parametrize("step", Step.__subclasses__(), ids=lambda step: step.__name__)
def test_a_step_says_what_it_does_and_what_a_kill_does(step):
    text = inspect.getdoc(step) or ""
    assert re.search(r"^Killed.*: ", text, re.MULTILINE)
    assert (step.at is None) == (not step.before)


CHANGES = [each for each in WAY if each[3] is not None and each[3].at is not None]


@pytest.mark.parametrize(("phase", "at_source", "at_target", "step"), CHANGES)
def test_a_step_can_be_repeated(phase, at_source, at_target, step):
    """What it makes of the fence is possible in the phase that it was chosen in, which may not be recorded any more."""
    state, possible = (at_source, POSSIBLE[phase][0]) if step.at is Side.SOURCE else (at_target, POSSIBLE[phase][1])
    assert state in step.before
    assert step.after in possible


def test_one_phase_leads_to_the_next():
    after = [step.leads_to for *_, step in WAY if step is not None and step.leads_to is not None]
    assert set(after) | {Phase.PLANNED, Phase.PURGING, Phase.ABORTING} == set(Phase)

"""
The mutations of moving buckets: steps in the wrong order, on no condition, or not waited for.
"""

from __future__ import annotations

from scripts.mutation_list import Mutation

STATE = "sharding/rebalance/move_state.py"
BEFORE = "sharding/rebalance/undecided_steps.py"
AFTER = "sharding/rebalance/decided_steps.py"
MODEL = ("tests/rebalance/test_model.py",)
GUARD = "sharding/fence/functions.py"
TRIGGERS = "sharding/fence/trigger_functions.py"
WRITERS = ("tests/fence/test_writers.py",)

MUTATIONS = [
    Mutation(
        "a mover acts on fences that it has not claimed",
        STATE,
        "    return _claim(seen) or _step(seen)\n",
        "    return _step(seen)\n",
        MODEL,
    ),
    Mutation(
        "capturing begins without a barrier",
        BEFORE,
        "    barrier = True\n    leads_to = Phase.COPYING\n",
        "    leads_to = Phase.COPYING\n",
        MODEL,
    ),
    Mutation(
        "the fence closes without a barrier",
        BEFORE,
        "    barrier = True\n    leads_to = Phase.FINISHING\n",
        "    leads_to = Phase.FINISHING\n",
        MODEL,
    ),
    Mutation(
        "a move back begins with rows that it does not have",
        STATE,
        "undecided_steps.Reopen() if seen.state(Side.TARGET) is BucketState.MOVED else undecided_steps.CatchUp()",
        "undecided_steps.CatchUp()",
        MODEL,
    ),
    Mutation(
        "rows are deleted while old maps are in use",
        STATE,
        "    if seen.old_maps or seen.wanted is Wanted.PAUSE:\n",
        "    if seen.wanted is Wanted.PAUSE:\n",
        MODEL,
    ),
    Mutation(
        "the target opens without notes for a rollback",
        AFTER,
        "    after = BucketState.CAPTURING\n    leads_to = Phase.OWNING\n",
        "    after = BucketState.OWNED\n    leads_to = Phase.OWNING\n",
        MODEL,
    ),
    Mutation(
        "a purge leaves the row of a mover that slept",
        AFTER,
        "    before = frozenset({BucketState.MOVED, BucketState.IMPORTING})\n",
        "    before = frozenset({BucketState.MOVED})\n",
        MODEL,
    ),
    Mutation(
        "an aborted move waits with opening the source",
        STATE,
        "    if seen.state(Side.SOURCE) is not BucketState.OWNED:\n        return undecided_steps.Restore()\n",
        "    if seen.at_target is ABSENT:\n        return undecided_steps.Restore()\n",
        MODEL,
    ),
    Mutation(
        "the guard reads the state as of the beginning of the statement",
        GUARD,
        "LANGUAGE plpgsql VOLATILE AS $$\n-- Returns whether rows of the bucket are to be noted;",
        "LANGUAGE plpgsql STABLE AS $$\n-- Returns whether rows of the bucket are to be noted;",
        WRITERS,
    ),
    Mutation(
        "the guard believes an older snapshot",
        GUARD,
        "WHERE bucket = asked FOR SHARE;\n        END IF;\n",
        "WHERE bucket = asked;\n        END IF;\n",
        WRITERS,
    ),
    Mutation(
        "the guard believes an older snapshot of many buckets",
        GUARD,
        "ORDER BY bucket FOR SHARE;",
        "ORDER BY bucket;",
        WRITERS,
    ),
    Mutation(
        "the guard looks only at the bucket that a row gets",
        TRIGGERS,
        "    IF @schema@.sharding_fence_check(OLD.bucket, TG_RELID) THEN\n",
        "    IF NEW.bucket = OLD.bucket AND @schema@.sharding_fence_check(OLD.bucket, TG_RELID) THEN\n",
        WRITERS,
    ),
    Mutation(
        "the guard of statements looks only at the buckets that rows get",
        TRIGGERS,
        '_statement("update", "old_rows", "new_rows")',
        '_statement("update", "new_rows")',
        WRITERS,
    ),
    Mutation(
        "nothing guards against TRUNCATE",
        "sharding/fence/triggers.py",
        "        truncate,\n    ]\n",
        "    ]\n",
        WRITERS,
    ),
    Mutation(
        "the guard takes a lock for each bucket without limit",
        GUARD,
        "    IF cardinality(asked) > {MOST_LOCKS} AND",
        "    IF false AND",
        ("tests/fence/test_crowds.py",),
    ),
    Mutation(
        "the guard locks a bucket after the whole shard",
        GUARD,
        "        PERFORM @schema@.sharding_fence_widen();\n",
        "",
        WRITERS,
    ),
    Mutation(
        "the guard forgets that a list is full",
        GUARD,
        "            more := {_NONE_MORE};\n",
        "            more := '';\n",
        ("tests/fence/test_crowds.py",),
    ),
]

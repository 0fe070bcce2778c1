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
ACTIONS = "sharding/rebalance/undecided_actions.py"
STORED = "sharding/rebalance/stored_moves.py"
BROKEN = "tests/moving/test_broken_protocol.py"
TAKING = "tests/moving/test_taking.py"
CLOSED = "tests/moving/test_closed.py"
ROUNDS = "tests/moving/test_rounds.py"

#: Of movers between real servers.
OF_MOVERS = [
    Mutation(
        "a mover begins to take notes while transactions are open",
        ACTIONS,
        "    change_behind(work, attempts, step, act)\n    work.record(attempts, step)\n\n\ndef copy",
        "    change(work, attempts, step, act)\n    work.record(attempts, step)\n\n\ndef copy",
        (f"{BROKEN}::test_writers_that_are_at_it_are_waited_for",),
    ),
    Mutation(
        "a mover closes the source while transactions are open",
        ACTIONS,
        "    change_behind(work, attempts, step, act)\n    work.record(attempts, step)\n\n\ndef unfence",
        "    change(work, attempts, step, act)\n    work.record(attempts, step)\n\n\ndef unfence",
        (f"{BROKEN}::test_writers_that_are_at_it_are_waited_for",),
    ),
    Mutation(
        "a mover reads the last notes before it closes the source",
        ACTIONS,
        "    while _take_over(work, attempts):\n",
        "    while False:\n",
        (f"{BROKEN}::test_notes_are_read_behind_the_barrier",),
    ),
    Mutation(
        "a shard that gets a bucket gives numbers again",
        "sharding/rebalance/sequences.py",
        "        if column in there:\n",
        "        if False:\n",
        ("tests/moving/test_numbers.py",),
    ),
    Mutation(
        "a wish for all moves takes back an abort",
        "sharding/rebalance/registering.py",
        "    kept = _KEPT.get(wanted, ()) if not buckets else ()\n",
        "    kept = ()\n",
        ("tests/moving/test_commands.py",),
    ),
    Mutation(
        "clean-up deletes what a restored shard hides of its own",
        "sharding/rebalance/cleaning.py",
        "_on_shard(session, live, _owned(control, alias))",
        "_on_shard(session, live, [])",
        ("tests/moving/test_restored_shard.py", "tests/moving/test_commands.py"),
    ),
    Mutation(
        "rows that have a note count as missing",
        "sharding/rebalance/comparing.py",
        '        others = SQL("NOT {}").format(s.among(self.table, self._logged()))\n',
        '        others = SQL("NOT {}").format(s.among(self.table, ()))\n',
        ("tests/rebalance/test_verifying.py::test_rows_of_large_tables_are_counted_while_others_write",),
    ),
    Mutation(
        "rows of large tables are not counted",
        "sharding/rebalance/comparing.py",
        "        return self.sent == self.arrived\n",
        "        return True\n",
        ("tests/rebalance/test_verifying.py::test_a_number_of_rows_that_the_log_does_not_explain_is_found",),
    ),
    Mutation(
        "rows of large tables are counted while nobody can write them",
        ACTIONS,
        "        attempt.large = large_tables(reports[attempt.move.bucket])\n",
        "",
        (f"{ROUNDS}::test_rows_of_large_tables_are_not_counted_while_they_are_closed",),
    ),
    Mutation(
        "notes are deleted up to the highest number that was seen",
        "sharding/rebalance/capturing.py",
        "WHERE seq = ANY(%s::bigint[])\n",
        "WHERE seq <= (SELECT max(n) FROM unnest(%s::bigint[]) AS n)\n",
        (f"{BROKEN}::test_a_note_that_appears_late_with_a_low_number_is_not_forgotten",),
    ),
    Mutation(
        "notes are taken over while a chunk is on its way",
        "sharding/rebalance/copying.py",
        "        entries = read(source, facts, BATCH)\n",
        "        entries = read(source, facts, BATCH)\n"
        "        from sharding.rebalance import capturing, sessions as s_\n"
        "        ends = sessions.source.alias, sessions.target.alias\n"
        "        with s_.open_sessions(*ends, buckets=facts.bucket, generation=facts.generation) as others:\n"
        "            capturing.drain(others, facts)\n",
        (f"{BROKEN}::test_a_row_that_is_written_while_its_chunk_is_on_its_way_arrives",),
    ),
    Mutation(
        "a fence is changed whoever has it in hand",
        "sharding/fence/barrier.py",
        '        f"WHERE bucket IN ({_IN_ORDER}) AND generation <= %s AND state = ANY(%s)",\n',
        '        f"WHERE bucket IN ({_IN_ORDER}) AND %s IS NOT NULL AND state = ANY(%s)",\n',
        (f"{BROKEN}::test_an_attempt_that_was_overtaken_changes_no_fence",),
    ),
    Mutation(
        "rows are brought whoever has the target in hand",
        "sharding/rebalance/sessions.py",
        "        if held != generation:\n",
        "        if held is None:\n",
        ("tests/rebalance/test_capturing.py::test_an_attempt_that_is_superseded_writes_nothing",),
    ),
    Mutation(
        "a phase is recorded whoever has the move in hand",
        STORED,
        'WHERE id IN ({IN_ORDER}) AND generation = %s AND phase = %s",\n',
        'WHERE id IN ({IN_ORDER}) AND %s IS NOT NULL AND phase = %s",\n',
        (f"{BROKEN}::test_one_that_was_overtaken_records_nothing",),
    ),
    Mutation(
        "the decision is made in two transactions",
        STORED,
        '        cursor.execute(\n            "UPDATE sharding_bucket SET shard',
        '        cursor.execute("COMMIT")\n        cursor.execute("BEGIN")\n'
        '        cursor.execute(\n            "UPDATE sharding_bucket SET shard',
        (f"{BROKEN}::test_a_decision_is_made_or_not",),
    ),
    Mutation(
        "rows are deleted while old statements are running",
        "sharding/rebalance/seeing.py",
        "    return past < timedelta() or longest > past\n",
        "    return past < timedelta()\n",
        (f"{TAKING}::test_a_move_waits_for_old_statements_and_is_not_taken_again_and_again",),
    ),
    Mutation(
        "no row is believed of a former owner",
        "sharding/backends/rerouting.py",
        "(not is_something or _is_doubtful(self.connection))",
        "_is_doubtful(self.connection)",
        ("tests/test_rerouting.py::test_nothing_is_not_believed",),
    ),
    Mutation(
        "what is wanted at the last moment is not looked at",
        STORED,
        "        if Wanted(wanted[move.id]) is not move.wanted:\n",
        "        if False:\n",
        (f"{TAKING}::test_what_is_wanted_at_the_last_moment_is_done",),
    ),
    Mutation(
        "a mover that hangs counts for its shards when it is replaced",
        "sharding/rebalance/claiming.py",
        "for _, numbers, *pair in in_hand if move.id not in numbers for alias in pair",
        "for _, numbers, *pair in in_hand for alias in pair",
        (f"{TAKING}::test_one_that_gives_none_is_replaced_though_its_shards_have_enough",),
    ),
    Mutation(
        "an overtaken mover opens what its successor has closed",
        "sharding/rebalance/failing.py",
        "    is_ours = found.generation == move.generation\n",
        "    is_ours = True\n",
        (f"{CLOSED}::test_an_attempt_that_was_overtaken_opens_nothing",),
    ),
    Mutation(
        "sessions keep the name of a move that others continue",
        "sharding/rebalance/claiming.py",
        "            rename(session)\n",
        "            pass\n",
        ("tests/moving/test_session_names.py",),
    ),
]
#: Of several buckets that go over in one round.
OF_ROUNDS = [
    Mutation(
        "one overtaken move does not stop what a round records",
        STORED,
        "    if cursor.rowcount != len(moves):\n        raise superseded(alias, moves)\n",
        "    if not cursor.rowcount:\n        raise superseded(alias, moves)\n",
        (f"{ROUNDS}::test_one_that_is_overtaken_stops_what_they_do_together",),
    ),
    Mutation(
        "one fence that others have claimed does not stop a round",
        "sharding/fence/barrier.py",
        "    return bool(changed == len(numbers))\n",
        "    return bool(changed)\n",
        (f"{ROUNDS}::test_one_that_fails_while_they_are_closed_leaves_no_other_one_closed",),
    ),
    Mutation(
        "the barrier of a round has the lock of one bucket",
        "sharding/fence/barrier.py",
        "    numbers = _numbers(buckets)\n    # In one order",
        "    numbers = _numbers(buckets)[:1]\n    # In one order",
        (f"{ROUNDS}::test_a_writer_that_does_not_end_holds_up_its_own_bucket_alone",),
    ),
    Mutation(
        "a round that fails leaves its buckets closed",
        "sharding/rebalance/mover.py",
        "        self._open_again(moves, work)\n        self._forget_sessions(error)\n        self._alone",
        "        self._forget_sessions(error)\n        self._alone",
        (f"{ROUNDS}::test_one_that_fails_while_they_are_closed_leaves_no_other_one_closed",),
    ),
    Mutation(
        "what is wanted of the first of a round stands for all",
        STORED,
        "    for move in moves:\n        if Wanted(",
        "    for move in moves[:1]:\n        if Wanted(",
        (f"{ROUNDS}::test_what_is_wanted_at_the_last_moment_leaves_all_undecided",),
    ),
    Mutation(
        "moves that wait for others of their round give no signs of life",
        "sharding/rebalance/attempt.py",
        "for attempt in self.attempts]\n        wanted",
        "for attempt in self.attempts[:1]]\n        wanted",
        (f"{ROUNDS}::test_a_bucket_that_waits_for_others_gives_signs_of_life",),
    ),
    Mutation(
        "buckets without writes are not counted before the decision",
        "sharding/rebalance/verifying.py",
        "        if facts.bucket not in alike:\n",
        "        if keys:\n",
        (f"{ROUNDS}::test_rows_that_differ_stop_only_their_own_bucket",),
    ),
    Mutation(
        "rows that were written meanwhile are not compared before the decision",
        "sharding/rebalance/glance.py",
        "        if written\n",
        "        if False\n",
        (f"{ROUNDS}::test_rows_that_were_written_meanwhile_are_compared_while_they_are_closed",),
    ),
    Mutation(
        "a move that is to pause waits in a phase in which it is taken in hand",
        STATE,
        "    closes = seen.phase in {Phase.FENCING, Phase.FINISHING}\n",
        "    closes = seen.phase is Phase.FINISHING or seen.state(Side.SOURCE) is BucketState.FENCED\n",
        ("tests/rebalance/test_move_state.py::test_a_pause_leaves_no_bucket_fenced",),
    ),
]
MUTATIONS = [
    *OF_MOVERS,
    *OF_ROUNDS,
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
        "a statement for many buckets takes a lock for each of the first",
        GUARD,
        "    IF cardinality(asked) > {MOST_LOCKS} AND",
        "    IF false AND",
        WRITERS,
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
        WRITERS,
    ),
]

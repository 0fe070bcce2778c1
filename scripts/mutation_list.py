"""
The mutations: one defect each, of the kinds that have cost others wrong answers or lost writes.
"""

from __future__ import annotations

from dataclasses import dataclass

DIFFERENTIAL = "tests/differential"


@dataclass(frozen=True)
class Mutation:
    """One defect: ``old`` becomes ``new`` in ``file``, and one of ``tests`` must fail."""

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]


MUTATIONS = [
    Mutation(
        "a negated key counts as the key",
        "sharding/routing.py",
        "    if negated:\n        return None\n    if isinstance(node, (Exact, In)):",
        "    if isinstance(node, (Exact, In)):",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "OR narrows as AND does",
        "sharding/routing.py",
        "            found = _either(found, _node(child, negated))",
        "            found = _both(found, _node(child, negated))",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "no tie-break in sliced answers",
        "aggregator/compilers.py",
        "            order_by.extend(self._ties(order_by, select))\n",
        "            pass\n",
        ("tests/test_fan_out.py",),
    ),
    Mutation(
        "NULLs at the wrong end",
        "aggregator/ordering.py",
        "    return largest == ordering.descending",
        "    return largest != ordering.descending",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "NULLS FIRST ignored",
        "aggregator/ordering.py",
        "    if ordering.nulls_first or ordering.nulls_last:\n        return bool(ordering.nulls_first)\n",
        "",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "text is sorted in Python, whatever its collation",
        "aggregator/ranks.py",
        "    return kind.type == TEXT and collations.sort_by_code_points(connections, kind.collation)",
        "    return kind.type == TEXT",
        ("tests/ranks",),
    ),
    Mutation(
        "values of an unknown order are sorted in Python",
        "aggregator/ranks.py",
        "    return kind.type == TEXT and collations.sort_by_code_points(connections, kind.collation)",
        "    return collations.sort_by_code_points(connections, kind.collation)",
        ("tests/ranks",),
    ),
    Mutation(
        "a chunk that has ended is taken for the end of its shard's rows",
        "aggregator/merge.py",
        "            if taken[turn] == len(held[turn]):\n",
        "            if False:\n",
        ("tests/test_merge.py",),
    ),
    Mutation(
        "OFFSET pushed down to every shard",
        "aggregator/compilers.py",
        "        query.low_mark = 0\n",
        "",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "the aggregate of no rows is 0",
        "aggregator/finishing.py",
        "    if not values:\n        return None\n",
        "    if not values:\n        return 0\n",
        ("tests/test_fan_out.py",),
    ),
    Mutation(
        "DISTINCT counted once per shard",
        "aggregator/columns.py",
        "not (spread or self._listed or self._splits) and all(map(self._on_one_shard, different))",
        "True",
        ("tests/test_fan_out.py",),
    ),
    Mutation(
        "the mean of means",
        "aggregator/columns.py",
        'return self._typed(leaf, f"(SUM({total}){factor} / NULLIF(SUM({number}), 0))")',
        'return self._typed(leaf, f"(AVG({total}{factor} / NULLIF({number}, 0)))")',
        (DIFFERENTIAL,),
    ),
    Mutation(
        "the variance of the whole without that between its parts",
        "aggregator/variance.py",
        "GREATEST(ROUND({between}, 300), 0)::float8)",
        "0)",
        ("tests/test_variance.py",),
    ),
    Mutation(
        "a root that is rounded twice",
        "aggregator/variance.py",
        "SQRT(ROUND(v, {DECIMALS}))",
        "SQRT(v)",
        ("tests/test_variance.py",),
    ),
    Mutation(
        "equal values listed once",
        "aggregator/listing.py",
        "            builder.key(key)\n",
        "            pass\n",
        ("tests/test_listing.py",),
    ),
    Mutation(
        "a shard takes no part in the atomic block",
        "sharding/backends/native_compilers.py",
        "        self._door.enlist(connection.alias)\n",
        "",
        ("tests/transactions",),
    ),
    Mutation(
        "savepoints are not made on the shards",
        "sharding/backends/transactions.py",
        "        if self.open_savepoints:\n            participant.establish(self._shared_savepoints())\n",
        "",
        ("tests/transactions",),
    ),
    Mutation(
        "two databases commit one after the other without being asked to",
        "sharding/backends/ending.py",
        '    elif door.commits_one_by_one or conf.current().without_two_phase_commit == "sequential":',
        "    elif True:",
        ("tests/transactions",),
    ),
    Mutation(
        "a failed statement on a shard is forgotten at commit",
        "sharding/backends/ending.py",
        "    if broken:\n",
        "    if False:\n",
        ("tests/transactions",),
    ),
    Mutation(
        "rows returned by INSERT are out of order",
        "sharding/backends/inserts.py",
        "zip(groups[alias], answers, strict=False)",
        "zip(reversed(groups[alias]), answers, strict=False)",
        ("tests/seam", "tests/test_insert_order.py"),
    ),
    Mutation(
        "the bucket is read from the wrong bits of an id",
        "sharding/ids.py",
        "    return value.int >> 64 & _BUCKET_MASK",
        "    return value.int >> 63 & _BUCKET_MASK",
        ("tests/test_ids.py",),
    ),
    Mutation(
        "an id of another bucket is not refused",
        "sharding/backends/inserts.py",
        "        entry.verify(instance, bucket)\n",
        "",
        ("tests/test_inherited_key.py", "tests/test_using.py"),
    ),
    Mutation(
        "a stale map is kept for ever",
        "sharding/cluster_map.py",
        "    if time.monotonic() >= loaded.until and",
        "    if False and",
        ("tests/test_cluster_map.py",),
    ),
    Mutation(
        "a subquery over another key is answered on one shard",
        "sharding/locality.py",
        "    if own is None or own != buckets or len(own) != 1:",
        "    if False:",
        (DIFFERENTIAL, "tests/test_locality.py", "tests/seam/test_subqueries.py"),
    ),
    Mutation(
        "raw SQL over a sharded table is let through",
        "sharding/backends/raw_sql.py",
        "    if table is not None:\n        raise",
        "    if False:\n        raise",
        ("tests/test_raw_sql.py",),
    ),
    Mutation(
        "the first database of a block may wait for ever",
        "sharding/backends/lock_timeouts.py",
        "        for alias, participant in self.participants.items():\n",
        "        for alias, participant in list(self.participants.items())[1:]:\n",
        ("tests/deadlocks/test_lock_timeouts.py",),
    ),
    Mutation(
        "a limit that a savepoint has undone is taken for told",
        "sharding/backends/lock_timeouts.py",
        "        self._told = {alias: savepoints for alias, savepoints in self._told.items() "
        "if sid not in savepoints}\n",
        "",
        ("tests/deadlocks/test_lock_timeouts.py",),
    ),
    Mutation(
        "a function is repeated after its commit",
        "sharding/retrying.py",
        "    else:\n        attempt.mark(alias)\n",
        "",
        ("tests/deadlocks/test_retry_refusals.py",),
    ),
    Mutation(
        "the older block of a deadlock is ended",
        "sharding/operations/wait_graph.py",
        "        return max(ours, key",
        "        return min(ours, key",
        ("tests/deadlocks/test_wait_graph.py",),
    ),
    Mutation(
        "a wait that has ended counts for the detector",
        "sharding/operations/wait_graph.py",
        "for wait in self.waits if wait in again)",
        "for wait in self.waits)",
        ("tests/deadlocks/test_detector.py",),
    ),
    Mutation(
        "rows are locked in the order given",
        "sharding/locking.py",
        "for place in sorted(places) for row",
        "for place in places for row",
        ("tests/deadlocks/test_lock_in_order.py",),
    ),
    Mutation(
        "a block that is whole is compensated",
        "sharding/commits/compensating.py",
        "    if committed and refused:",
        "    if committed:",
        ("tests/transactions/test_compensation_recovery.py",),
    ),
    Mutation(
        "a mark is deleted while the log needs it",
        "sharding/commits/compensating.py",
        "        logged = {log.block for log in logs}",
        "        logged = set()",
        ("tests/transactions/test_compensation_recovery.py",),
    ),
    Mutation(
        "a rolled back savepoint keeps its compensations",
        "sharding/backends/transactions.py",
        "        self.compensations = [each for each in self.compensations if sid not in each.savepoints]\n",
        "",
        ("tests/transactions/test_compensations.py",),
    ),
    Mutation(
        "an entry is written outside of its row's transaction",
        "sharding/backends/lookup_writes.py",
        ", transaction.atomic(using=door.alias, savepoint=False):\n        yield\n",
        ":\n        yield\n",
        ("tests/lookups/test_commits.py",),
    ),
    Mutation(
        "an update leaves the entries as they were",
        "sharding/backends/lookup_writes.py",
        "                entries.settle(touched, stored, self.door.alias)\n",
        "                pass\n",
        ("tests/lookups/test_writes.py",),
    ),
    Mutation(
        "one of the updated rows stands for all",
        "sharding/backends/lookup_writes.py",
        "    if not any(_names_row(node, options) for node in routing.anded(query.where)):\n        return None\n",
        "",
        ("tests/lookups/test_writes.py",),
    ),
    Mutation(
        "a row that is left out takes a value",
        "sharding/backends/lookup_writes.py",
        "            raise ValueTaken",
        "            pass",
        ("tests/lookups/test_bulk_writes.py",),
    ),
    Mutation(
        "a lookup answers before it is built",
        "sharding/backends/compilers.py",
        "        if not states.is_built(match.lookup.name):",
        "        if False:",
        ("tests/lookups/test_not_built.py",),
    ),
    Mutation(
        "nobody waits for the row of a committed entry",
        "sharding/backends/lookup_reads.py",
        "            in_flight.wait_for(self.connection, in_flight.commits(self.connection), seconds=PATIENCE)\n",
        "",
        ("tests/lookups/test_between_commits.py",),
    ),
    Mutation(
        "rows are not locked while their entries are made",
        "sharding/operations/lookup_rows.py",
        ".select_for_update(no_key=True)",
        "",
        ("tests/lookups/test_build_online.py",),
    ),
    Mutation(
        "an interrupted build forgets what was wrong",
        "sharding/operations/lookups.py",
        "                if not report.wrong:\n",
        "                if True:\n",
        ("tests/lookups/test_build.py",),
    ),
    Mutation(
        "an entry counts as an orphan while its row is being committed",
        "sharding/operations/lookup_orphans.py",
        "    if in_flight.wait_for(connection, in_flight.commits(connection), seconds=PATIENCE):\n        return\n",
        "",
        ("tests/lookups/test_build_online.py",),
    ),
    Mutation(
        "reference rows stay on the control database",
        "sharding/backends/reference_writes.py",
        "        if rows:\n            self._copy",
        "        if False:\n            self._copy",
        ("tests/reference/test_writes.py",),
    ),
    Mutation(
        "a write misses a shard that is brought up to date",
        "sharding/reference_copies.py",
        '" FOR UPDATE" if alone else " FOR SHARE"',
        '" FOR UPDATE" if alone else ""',
        ("tests/reference_copies/test_concurrency.py",),
    ),
    Mutation(
        "a shard without the reference rows answers",
        "sharding/backends/raw_reference_sql.py",
        "            reference_copies.require(connection.alias, table)",
        "            pass",
        ("tests/reference_copies/test_copies.py",),
    ),
    Mutation(
        "a reference subquery reads one shard's rows",
        "sharding/locality.py",
        "        if query.alias_refcount.get(alias) and join.table_name in sharded:\n            raise _cannot_join",
        "        if False:\n            raise _cannot_join",
        ("tests/reference/test_reads.py",),
    ),
]

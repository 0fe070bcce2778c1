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
        "        self._pushes_distinct = all(self._on_one_shard(leaf) for leaf in leaves if leaf.distinct)",
        "        self._pushes_distinct = True",
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
        "a shard takes no part in the atomic block",
        "sharding/backends/compilers.py",
        "        self._door.enlist(connection.alias)\n",
        "",
        ("tests/transactions",),
    ),
    Mutation(
        "savepoints are not made on the shards",
        "sharding/backends/transactions.py",
        "            participant.establish(self._shared_savepoints())\n",
        "            pass\n",
        ("tests/transactions",),
    ),
    Mutation(
        "two databases commit one after the other without being asked to",
        "sharding/backends/transactions.py",
        "        if len(writers) > 1 and not self._commits_one_by_one:",
        "        if False:",
        ("tests/transactions",),
    ),
    Mutation(
        "a failed statement on a shard is forgotten at commit",
        "sharding/backends/transactions.py",
        "        if broken:\n",
        "        if False:\n",
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
        ("tests/test_locality.py", "tests/seam/test_subqueries.py"),
    ),
    Mutation(
        "raw SQL over a sharded table is let through",
        "sharding/backends/raw_sql.py",
        "        if table is not None:",
        "        if False:",
        ("tests/test_raw_sql.py",),
    ),
]

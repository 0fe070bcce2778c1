"""
Mutations of what is done once for all shards, and of what is finished in Python.
"""

from __future__ import annotations

from scripts.mutation_list import Mutation

MUTATIONS = [
    Mutation(
        "a kept SELECT clause outlives its fields",
        "sharding/backends/whole_rows.py",
        "    if of is not fields or not columns:\n",
        "    if not columns:\n",
        ("tests/test_whole_rows.py",),
    ),
    Mutation(
        "deferred columns are selected",
        "sharding/backends/whole_rows.py",
        "        and not query.deferred_loading[0]\n",
        "",
        ("tests/test_whole_rows.py",),
    ),
    Mutation(
        "columns are selected in no way of their own",
        "sharding/backends/whole_rows.py",
        "    return type(expression.output_field).select_format is Field.select_format\n",
        "    return True\n",
        ("tests/test_whole_rows.py",),
    ),
    Mutation(
        "different values count once for each shard",
        "aggregator/totals.py",
        "len({row[position] for row in rows if row[position] is not None})",
        "len([row[position] for row in rows if row[position] is not None])",
        ("tests/test_totals.py",),
    ),
    Mutation(
        "there are no aggregates of no groups",
        "aggregator/totals.py",
        "            groups.setdefault((), [])\n",
        "            pass\n",
        ("tests/test_totals.py",),
    ),
]

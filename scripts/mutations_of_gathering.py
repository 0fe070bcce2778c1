"""
The mutations of the tier "gather": rows that do not travel, or are not enough, and limits that do not hold.
"""

from __future__ import annotations

from scripts.mutation_list import DIFFERENTIAL, Mutation

GATHERED = ("tests/test_gather.py", "tests/test_gathered_rows.py", "tests/test_gathered_shapes.py")

MUTATIONS = [
    Mutation(
        "a condition is pushed below an outer join",
        "aggregator/gathered_conditions.py",
        "    if not isinstance(join, BaseTable) and join.join_type != INNER:\n",
        "    if False:\n",
        GATHERED,
    ),
    Mutation(
        "only the rows of a table's first reader travel",
        "aggregator/gathered_tables.py",
        '    return joined(conditions, " OR ")\n',
        "    return conditions[0]\n",
        GATHERED,
    ),
    Mutation(
        "a condition on two tables is taken for one on a single table",
        "aggregator/gathered_conditions.py",
        "    return bool(columns) and all(isinstance(each, Col) and each.alias in aliases for each in columns)\n",
        "    return any(isinstance(each, Col) and each.alias in aliases for each in columns)\n",
        GATHERED,
    ),
    Mutation(
        "each shard looks for what a join finds elsewhere",
        "aggregator/gathered_conditions.py",
        "        elif join.parent_alias in found and locality.is_inside(join):\n",
        "        elif join.parent_alias in found:\n",
        GATHERED,
    ),
    Mutation(
        "an OR is taken apart as an AND",
        "aggregator/gathered_conditions.py",
        "(where.connector == AND or len(where.children) == 1)",
        "True",
        GATHERED,
    ),
    Mutation(
        "a foreign subquery reads the rows of the keys' shards only",
        "aggregator/gather.py",
        "        return hook.restricted(self.query, cluster_map.current().aliases)\n",
        "        return self.request.aliases[:1]\n",
        GATHERED,
    ),
    Mutation(
        "the limit of gathered rows is forgotten",
        "aggregator/gathering.py",
        "        if sum(int(each[place]) for each in counted) <= limit:\n            continue\n",
        "        continue\n",
        GATHERED,
    ),
    Mutation(
        "one shard answers a query whose subquery needs all",
        "sharding/locality.py",
        "    if own is None or own != buckets or len(own) != 1:\n",
        "    if False:\n",
        GATHERED,
    ),
    Mutation(
        "windows are merged, whatever they are partitioned by",
        "aggregator/planner.py",
        "            if each.partition_by is None or _disjoint(query, sources(each.partition_by)) is None:\n",
        "            if False:\n",
        GATHERED,
    ),
    Mutation(
        "a write by a foreign subquery asks each shard for itself",
        "aggregator/writes.py",
        "    if request.refused is not None or is_by_window:\n        return Resolving(request)\n",
        "",
        GATHERED,
    ),
    Mutation(
        "gathered rows are not locked out by what changed meanwhile",
        "aggregator/resolving.py",
        "        kept = [node for node in conjuncts(query.where) if reads_only(node, {base})]\n",
        "        kept = []\n",
        GATHERED,
    ),
    Mutation(
        "groups of gathered rows rely on a primary key",
        "aggregator/gathered_tables.py",
        " no primary key on which other columns depend.\n        return expressions\n",
        "\n        return super().collapse_group_by(expressions, having)\n",
        GATHERED,
    ),
    Mutation(
        "subqueries of gathered rows see past a scope",
        "aggregator/gather.py",
        "        if reads.is_scoped():\n",
        "        if False:\n",
        ("tests/test_scopes.py",),
    ),
    Mutation(
        "forget the ownership predicate",
        "sharding/backends/hook.py",
        "        return ownership.limited(query, cluster_map.shown(self.map), careful=careful)\n",
        "        return query\n",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "it is believed that nothing is hidden",
        "sharding/ownership.py",
        "    ELSIF hides THEN\n",
        "    ELSIF false AND hides THEN\n",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "the fence does not count what it hides",
        "sharding/fence/shown.py",
        ", hidden = hidden + more_hidden",
        "",
        ("tests/test_hidden_rows.py",),
    ),
    Mutation(
        "what a shard has refused is sent to it as it was",
        "sharding/hidden_rows.py",
        "    _doubted = cluster_map.reading()\n",
        "    pass\n",
        ("tests/test_hidden_rows.py",),
    ),
    Mutation(
        "a block that has begun tries whether anything is hidden",
        "sharding/hidden_rows.py",
        "        if not _can_try(door, reading):\n",
        "        if False:\n",
        ("tests/test_hidden_rows.py",),
    ),
    Mutation(
        "batches take nothing to be hidden until the end",
        "aggregator/compilers.py",
        "                ownership.make_careful(self.query)\n",
        "                pass\n",
        ("tests/test_hidden_rows.py",),
    ),
    Mutation(
        "moves that are under way make nobody careful",
        "sharding/map_reading.py",
        "    is_quiet = not live_moves.exist()\n",
        "    is_quiet = True\n",
        ("tests/test_hidden_rows.py",),
    ),
    Mutation(
        "gathered rows forget the ownership predicate",
        "aggregator/gathering.py",
        '    if home.vendor == "postgresql":\n        bucket',
        "    if False:\n        bucket",
        (DIFFERENTIAL,),
    ),
    Mutation(
        "what shards show is compared with whatever map is known by then",
        "sharding/backends/hook.py",
        "cluster_map.shown(self.map)",
        "cluster_map.shown()",
        ("tests/test_maps_of_statements.py",),
    ),
    Mutation(
        "one shard of several is taken to hide nothing",
        "sharding/backends/hook.py",
        "len(self.aliases) > 1 or (self.buckets is None and len(self.map.aliases) > 1)",
        "len(self.aliases) > 1",
        ("tests/test_ownership.py",),
    ),
    Mutation(
        "a bucket that is being copied here shows its rows",
        "sharding/bucket_states.py",
        "HIDING = frozenset({BucketState.IMPORTING, BucketState.MOVED})",
        "HIDING = frozenset({BucketState.MOVED})",
        ("tests/test_ownership.py",),
    ),
]

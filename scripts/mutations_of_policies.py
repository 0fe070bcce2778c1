"""
Mutations of deadlines and of partial answers.
"""

from __future__ import annotations

from scripts.mutation_list import Mutation

MUTATIONS = [
    Mutation(
        "a shard that timed out is not drained",
        "aggregator/deadline.py",
        '                raw.execute("ROLLBACK" if begins else back, prepare=False)\n',
        "                pass\n",
        ("tests/policy/test_deadlines.py",),
    ),
    Mutation(
        "a session that is lost stays with its request",
        "aggregator/asking.py",
        "        else:\n            connection.close()\n",
        "        else:\n            pass\n",
        ("tests/policy/test_faults.py",),
    ),
    Mutation(
        "a partial answer does not say so",
        "aggregator/partial_answers.py",
        "        self.missing = record.missing\n",
        "        pass\n",
        ("tests/policy/test_partial.py",),
    ),
    Mutation(
        "no row exists where a shard is missing",
        "aggregator/partial_answers.py",
        "        if missing and not found:\n",
        "        if False:\n",
        ("tests/policy/test_partial.py",),
    ),
    Mutation(
        "shards that show other buckets than the map go unnoticed",
        "sharding/ownership.py",
        "SELECT shown <> coalesce",
        "SELECT false AND shown <> coalesce",
        ("tests/policy/test_snapshots.py",),
    ),
    Mutation(
        "a connection is used before it has answered what it was asked",
        "aggregator/multiplexing.py",
        "            self.wrapper.in_flight = self.finish\n",
        "            pass\n",
        ("tests/test_multiplexing.py",),
    ),
    Mutation(
        "a connection is used while another thread uses it",
        "aggregator/threads.py",
        "                connection.in_flight = _settling(futures[turn % lanes - 1])\n",
        "                pass\n",
        ("tests/test_multiplexing.py",),
    ),
]

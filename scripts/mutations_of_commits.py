"""
Mutations of the commits over several databases, and of who finishes what a crash leaves.
"""

from __future__ import annotations

from scripts.mutation_list import Mutation

MUTATIONS = [
    Mutation(
        "a block is decided before all are prepared",
        "sharding/commits/two_phase.py",
        "    try:\n        failures = at_once(participants, lambda each: _execute(each, "
        'f"PREPARE TRANSACTION {_name(gids, each)}"))\n'
        "        if failures:\n            raise failures[0][1]\n"
        "        _decide(control, participants, transaction, asked)\n",
        "    try:\n        _decide(control, participants, transaction, asked)\n"
        "        failures = at_once(participants, lambda each: _execute(each, "
        'f"PREPARE TRANSACTION {_name(gids, each)}"))\n'
        "        if failures:\n            raise failures[0][1]\n",
        ("tests/bank/test_kills.py",),
    ),
    Mutation(
        "a decision is forgotten before all are committed",
        "sharding/commits/two_phase.py",
        "        _carry_out(participants, gids, transaction)\n        _forget(control)\n",
        "        decisions.carried_out.append(transaction)\n        _forget(control)\n"
        "        _carry_out(participants, gids, transaction)\n",
        ("tests/bank/test_kills.py",),
    ),
    Mutation(
        "a resolver forgets what a shard that is down has yet to commit",
        "sharding/commits/resolver.py",
        "        if looked_at.issuperset(names) and transaction not in pending\n",
        "        if transaction not in pending\n",
        ("tests/bank/test_servers.py",),
    ),
    Mutation(
        "a resolver rolls back without a tombstone",
        "sharding/commits/resolver.py",
        "        verdict = decisions.refuse(control, each.gid.transaction)\n",
        "        verdict = False\n",
        ("tests/bank/test_verdicts.py",),
    ),
    Mutation(
        "a resolver ignores how old a transaction is",
        "sharding/commits/resolver.py",
        "        if each.age < min_age:\n",
        "        if False:\n",
        ("tests/bank/test_verdicts.py",),
    ),
    Mutation(
        "on_commit() runs before the decision",
        "sharding/backends/ending.py",
        "    try:\n        two_phase.commit(",
        "    door.run_and_clear_commit_hooks()\n    try:\n        two_phase.commit(",
        ("tests/bank/test_kills.py",),
    ),
    Mutation(
        "callbacks of a block that was given up are called by the next one",
        "sharding/backends/transactions.py",
        "            door.run_on_commit = []\n            raise\n",
        "            raise\n",
        ("tests/bank/test_verdicts.py",),
    ),
    Mutation(
        "a decision that was carried out and forgotten counts as none",
        "sharding/commits/recovery.py",
        "                return bool(cursor.fetchone()[0])\n",
        "                return False\n",
        ("tests/bank/test_verdicts.py",),
    ),
    Mutation(
        "a block around a shard's own block is prepared",
        "sharding/backends/ending.py",
        "    _refuse_inner(door, writers)\n",
        "",
        ("tests/transactions/test_own_blocks.py",),
    ),
    Mutation(
        "an interruption right after the decision is taken for a block without one",
        "sharding/commits/two_phase.py",
        "        return recovery.settle(transaction, {each.alias: each.transaction_id for each in participants})\n",
        "        return False\n",
        ("tests/transactions/test_interruptions.py",),
    ),
    Mutation(
        "a health check of the control database ends the block on the shards",
        "sharding/backends/own_transaction.py",
        '        kept["participants"], self.participants = self.participants, {}\n',
        "",
        ("tests/transactions/test_lost_sessions.py",),
    ),
    Mutation(
        "databases that were read end before what was written stands",
        "sharding/backends/participants.py",
        '    return number, number is None and isolation != "serializable"\n',
        "    return number, False\n",
        ("tests/transactions/test_readers.py",),
    ),
    Mutation(
        "an interrupted block is left open on its shards",
        "sharding/backends/participants.py",
        "        if each.is_inside():\n",
        "        if False:\n",
        ("tests/transactions/test_interruptions.py",),
    ),
    Mutation(
        "a shard is believed to be what its alias says",
        "sharding/backends/identities.py",
        "    if found != (str(uuid), alias):\n",
        "    if False:\n",
        ("tests/test_identities.py",),
    ),
]

"""
In which order databases are migrated. Pure: answers in, stages out.
"""

from __future__ import annotations

from collections.abc import Mapping

from sharding.migrating.databases import Databases
from sharding.migrating.survey import Answer


def stages(found: Databases, answers: Mapping[str, Answer]) -> list[tuple[str, ...]]:
    """
    Return the aliases to migrate, in stages: the databases of a stage together, and the next stage only after success.

    The control database comes first, then each app database, then one shard as the canary, then the other shards.
    Databases that cannot be reached are left out. Without the control database nothing is migrated. Shards without
    pending migrations are the last: they may lack a table or a fence all the same.
    """
    if any(answers[alias].error for alias in found.control):
        return []
    singles = [(alias,) for alias in (*found.control, *found.apps) if not answers[alias].error]
    shards = tuple(sorted((a for a in found.shards if not answers[a].error), key=lambda a: not answers[a].pending))
    return [*singles, *([shards[:1]] if shards else []), *([shards[1:]] if shards[1:] else [])]

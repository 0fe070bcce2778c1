"""
What is said of a shard whose fence is of another day than the bucket map: by `shards status`, and by a system check.
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf
from sharding.fence import agreement, installation, states


def disagreed(alias: str) -> str | None:
    """Return about how many buckets a shard's fence and the map disagree, in words; None if there is none."""
    connection: Any = connections[alias]
    if conf.current().fence is None or not conf.current().shards or not installation.is_possible(connection):
        return None
    fence = states.states(connection)
    if not fence:
        # It is not raised yet.
        return None
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        control = agreement.stored(cursor)
    wrong = [each for each in agreement.disagreements(alias, fence, control) if each.moving is None]
    if not wrong:
        return None
    return "1 bucket" if len(wrong) == 1 else f"{len(wrong):,} buckets"

"""
Whether buckets are on their way, or are about to be, as the control database says.
"""

from __future__ import annotations

from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf

#: Phases of a move after which no shard has rows of another's bucket because of it; see sharding.rebalance.phases.
ENDED = ("done", "aborted")


def exist() -> bool:
    """Ask the control database; before it has the table of moves, nobody has made one."""
    found = _under_way()
    return found is not None and found.exists()


def buckets() -> frozenset[int]:
    """Ask the control database which buckets are on their way, or about to be."""
    found = _under_way()
    return frozenset() if found is None else frozenset(found.values_list("bucket", flat=True))


def _under_way() -> Any:
    from sharding.move_tables import Move

    if not conf.current().shards:
        # There is nowhere to go.
        return None
    # A failing SELECT would break the caller's transaction; the catalogue can be asked safely.
    if Move._meta.db_table not in connections[DEFAULT_DB_ALIAS].introspection.table_names():
        return None
    return Move.objects.using(DEFAULT_DB_ALIAS).exclude(phase__in=ENDED)

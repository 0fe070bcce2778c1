"""
Whether shards may hide rows: a statement for several shards that need not look for them is cheaper.

Nothing depends on it but the cost, since a shard that hides rows refuses a statement which does not look. Whoever moves
a bucket records the move MAP_TTL before a shard hides anything, so that processes know of it in time; a refusal makes
them careful in all other cases.
"""

from __future__ import annotations

from typing import Any

from sharding import cluster_map, map_reading

#: The reading of the control database by which a statement was refused.
_doubted: map_reading.Loaded | None = None


def may_exist(door: Any) -> bool:
    """
    Return whether a statement has to look for them.

    What a shard has refused is tried again by a later reading, where it can be sent once more if the shard still does.

    Args:
        door: the caller's connection, by whose atomic block a statement is sent.
    """
    global _doubted
    reading = cluster_map.quiet()
    if reading is None or reading is _doubted:
        return True
    if _doubted is not None:
        if not _can_try(door, reading):
            return True
        _doubted = None
    return False


def doubt() -> None:
    """Take note that a statement was refused."""
    global _doubted
    _doubted = cluster_map.reading()


def _can_try(door: Any, reading: map_reading.Loaded) -> bool:
    """Return whether a statement that is refused now would leave nothing behind; see sharding.backends.rerouting."""
    if not door.in_atomic_block:
        return True
    # A TestCase begins the shards' transactions by itself, and undoes none before the end.
    return not (door.participants or door.alias in reading.map.aliases or door.is_borrowed())

"""
Blocks under REPEATABLE READ or SERIALIZABLE: each shard shows the rows of its own first moment in the block.

A bucket that has moved between two such moments would be seen twice, or not at all. Every database says which epoch of
the bucket map it has seen, in the same snapshot; where they differ, there is no answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sharding.errors import EpochChanged

#: The session's default, by the driver's connection, which is asked once.
_DEFAULT = "_shardkit_default_isolation"
STRICT = frozenset({"repeatable read", "serializable"})


def require_one_epoch(connections: Sequence[Any]) -> None:
    """
    Check that the shards which a block has snapshots of have seen the same epoch of the bucket map. They are connected.

    Raises:
        EpochChanged: they have not.
    """
    if len(connections) < 2 or not all(map(_holds_a_snapshot, connections)):
        return
    epochs = {connection.alias: _epoch(connection) for connection in connections}
    if len(set(epochs.values())) > 1:
        seen = ", ".join(f"{alias} {epoch}" for alias, epoch in epochs.items())
        raise EpochChanged(
            f"The bucket map changed while this block began, so that its snapshots of the shards do not fit together: "
            f"they show the epochs {seen}. Repeat the block; sharding.retry does so.",
            epochs=epochs,
        )


def _holds_a_snapshot(connection: Any) -> bool:
    if connection.vendor != "postgresql" or not connection.in_atomic_block:
        return False
    raw = connection.connection
    if raw.info.transaction_status.name == "INERROR":
        # It takes no more statements, of which the next one will complain.
        return False
    # Django's own says READ COMMITTED, too, where nobody chose one.
    level = raw.isolation_level
    name = _default(connection) if level is None else level.name.replace("_", " ").lower()
    return name in STRICT


def _default(connection: Any) -> str:
    raw = connection.connection
    if not hasattr(raw, _DEFAULT):
        with connection.wrap_database_errors:
            setattr(raw, _DEFAULT, raw.execute("SHOW default_transaction_isolation").fetchone()[0])
    return str(getattr(raw, _DEFAULT))


def _epoch(connection: Any) -> int:
    # The driver's connection: nobody's statements are counted for it. It is the first one of some snapshots.
    with connection.wrap_database_errors:
        row = connection.connection.execute("SELECT epoch FROM sharding_identity").fetchone()
    return 0 if row is None else int(row[0])

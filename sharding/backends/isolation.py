"""
Does a transaction see what is committed meanwhile, or only what was there at its first statement?
"""

from __future__ import annotations

from typing import Any

#: The session's default, by the driver's connection, which is asked once.
_DEFAULT = "_shardkit_default_isolation"
STRICT = frozenset({"repeatable read", "serializable"})


def holds_a_snapshot(connection: Any) -> bool:
    """Return whether an open connection is in a block all of whose statements see the same moment (PostgreSQL)."""
    if not connection.in_atomic_block:
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

"""
Does a transaction see what is committed meanwhile, or only what was there at its first statement?
"""

from __future__ import annotations

from typing import Any

STRICT = frozenset({"repeatable read", "serializable"})

#: What sessions have that ask for nothing else, by alias; each database is asked once in a process.
_defaults: dict[str, str] = {}


def learn_default(connection: Any) -> None:
    """Ask an open connection for its default, unless its database was asked before."""
    if connection.vendor == "postgresql" and connection.alias not in _defaults:
        # The driver's connection: nobody's statements are counted for it.
        with connection.wrap_database_errors:
            row = connection.connection.execute("SHOW default_transaction_isolation").fetchone()
        _defaults[connection.alias] = str(row[0])


def holds_a_snapshot(connection: Any) -> bool:
    """Return whether an open connection is in a block all of whose statements see the same moment (PostgreSQL)."""
    if not connection.in_atomic_block:
        return False
    raw = connection.connection
    if raw.info.transaction_status.name == "INERROR":
        # It takes no more statements, of which the next one will complain.
        return False
    # Django's own says READ COMMITTED, too, where nobody chose one.
    if raw.isolation_level is not None:
        return raw.isolation_level.name.replace("_", " ").lower() in STRICT
    learn_default(connection)
    return _defaults[connection.alias] in STRICT

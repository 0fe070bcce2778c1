"""
The name of a session in `pg_stat_activity`: the application's own, and after it whose block the session works for.

``web shardkit:0123456789abcdef`` is a session of the door 0123456789abcdef (sharding.backends.coordinator).
"""

from __future__ import annotations

import re

#: PostgreSQL's limit for application_name, in bytes (NAMEDATALEN - 1).
MAX_BYTES = 63

_DOOR = re.compile(r"(?:^| )shardkit:([0-9a-f]{16})$")
_GID = re.compile(r"shardkit:[0-9a-f]{32}:(([0-9a-f]{16})\.[0-9]+):", re.DOTALL)


def session_name(own: str, door: str) -> str:
    """Return the name of a session of ``door``, with as much of the application's own as there is room for."""
    suffix = f"shardkit:{door}"
    # PostgreSQL 16 spells out what is not ASCII with four characters a byte, and would then cut the door's name off.
    plain = "".join(each if " " <= each <= "~" else "?" for each in _DOOR.sub("", own))
    return f"{plain[: MAX_BYTES - len(suffix) - 1]} {suffix}".lstrip()


def door_of(name: str | None) -> str | None:
    """Return the door whose session has this name; None for a session of somebody else."""
    found = _DOOR.search(name or "")
    return found[1] if found else None


def door_of_gid(gid: str) -> str | None:
    """Return the door that prepared a transaction; None for one of another program."""
    found = _GID.match(gid)
    return found[2] if found else None

"""
The names of prepared transactions: ``shardkit:<cluster>:<coordinator>.<number>:<alias>``.

The name says whose a transaction is, so that nobody else's is ever touched, and which row of the control database
decides it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from uuid import UUID

PREFIX = "shardkit"
#: PostgreSQL's limit for a gid, in bytes with the final zero (GIDSIZE).
MAX_BYTES = 200

_FORM = re.compile(rf"{PREFIX}:([0-9a-f]{{32}}):([0-9a-f]{{16}}\.[0-9]+):(.+)", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Gid:
    """The name of one database's part of a transaction over several."""

    cluster: UUID
    #: Id of the transaction as a whole, ``<coordinator>.<number>``: the primary key of its decision.
    transaction: str
    alias: str

    def __str__(self) -> str:
        return f"{PREFIX}:{self.cluster.hex}:{self.transaction}:{self.alias}"

    @property
    def coordinator(self) -> str:
        """Return the name of the door whose block this was."""
        return self.transaction.partition(".")[0]

    @property
    def literal(self) -> str:
        """Return the gid as SQL: no parameter may stand where PREPARE TRANSACTION wants it."""
        return "'" + str(self).replace("'", "''") + "'"

    @classmethod
    def parse(cls, text: str, cluster: UUID) -> Gid | None:
        """Return the gid that ``text`` spells, or None when it is another program's or another cluster's."""
        found = _FORM.fullmatch(text)
        if found is None or found[1] != cluster.hex:
            return None
        return cls(cluster, found[2], found[3])

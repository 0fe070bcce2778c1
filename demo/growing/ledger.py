"""
The ledger of a writer: a line for every block that was acknowledged, written down after the acknowledgement.

It is all that is known of what must be in the cluster, and it comes from nobody but the writer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from django.db import connections, transaction

from demo.flights.models import Flight
from demo.servers import REFERENCE

TABLE = Flight._meta.db_table


@dataclass(frozen=True)
class Write:
    """One row that was written: what was done to it, its id, and the columns that were given."""

    kind: str
    id: str
    columns: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """One block, or one statement outside of any: how long it took, and how often it was called."""

    writes: tuple[Write, ...]
    seconds: float
    calls: int


def add(file: IO[str], entry: Entry) -> None:
    """Write down what was acknowledged."""
    file.write(json.dumps(asdict(entry), default=_text) + "\n")
    file.flush()


def entries(path: Path) -> Iterator[Entry]:
    """Yield what was acknowledged, in that order."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            found = json.loads(line)
            writes = tuple(Write(**each) for each in found.pop("writes"))
            yield Entry(writes, **found)


def repeat(found: list[Entry]) -> str | None:
    """Do in the reference database what the ledger says; return what is impossible there, in a sentence."""
    with transaction.atomic(using=REFERENCE), connections[REFERENCE].cursor() as cursor:
        for entry in found:
            for write in entry.writes:
                cursor.execute(*_statement(write))
                if cursor.rowcount != 1:
                    return f"The {write.kind} of flight {write.id} was acknowledged, and there is no such flight."
    return None


def _statement(write: Write) -> tuple[str, list[Any]]:
    names = list(write.columns)
    values = list(write.columns.values())
    if write.kind == "insert":
        marks = ", ".join(["%s"] * len(names))
        return f"INSERT INTO {TABLE} ({', '.join(names)}) VALUES ({marks})", values
    if write.kind == "update":
        assigned = ", ".join(f"{name} = %s" for name in names)
        return f"UPDATE {TABLE} SET {assigned} WHERE id = %s", [*values, write.id]
    return f"DELETE FROM {TABLE} WHERE id = %s", [write.id]


def _text(value: Any) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)

"""
What a verification has found, as plain values: kept with the move, and read by people.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

#: Rows that a report names one by one.
MOST_NAMED = 100
#: Letters of a value that a report shows.
MOST_SHOWN = 24
#: In the names of columns whose values are shown to nobody.
SECRET = ("password", "secret", "token", "hash", "salt", "credential", "api_key", "private")


@dataclass(frozen=True, slots=True)
class TableReport:
    """One table: how many rows each side has, and the sums of their digests."""

    name: str
    source_rows: int
    target_rows: int
    source_digest: str
    target_digest: str
    #: Rows that were written meanwhile: the log has them, or had, and they are not compared.
    pending: int = 0

    @property
    def alike(self) -> bool:
        return (self.source_rows, self.source_digest) == (self.target_rows, self.target_digest)


@dataclass(frozen=True, slots=True)
class Difference:
    """One row that is not the same on both sides."""

    table: str
    #: JSON array of the primary key's values.
    key: str
    #: "missing" on the target, "extra" there, or "changed".
    kind: str
    #: {column: (source's value, target's value)}, shortened.
    columns: Mapping[str, tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Orphans:
    """Rows on the target that refer to none, although a foreign key says that they do."""

    table: str
    constraint: str
    rows: int


@dataclass(frozen=True, slots=True)
class Report:
    """What was compared, and what was not alike."""

    bucket: int
    generation: int
    source: str
    target: str
    tables: tuple[TableReport, ...]
    #: At most MOST_NAMED of them; ``different`` has their number.
    differences: tuple[Difference, ...]
    different: int
    orphans: tuple[Orphans, ...]
    seconds: float

    @property
    def sound(self) -> bool:
        return not self.different and not self.orphans

    @property
    def pending(self) -> int:
        """Return how many rows are to be compared once the log is brought over."""
        return sum(table.pending for table in self.tables)

    @property
    def rows(self) -> int:
        return sum(table.source_rows for table in self.tables)

    def as_json(self) -> dict[str, Any]:
        """Return plain lists, dictionaries, texts and numbers, for sharding_move.report."""
        return {
            **asdict(self),
            "tables": [asdict(table) for table in self.tables],
            "differences": [asdict(each) for each in self.differences],
            "orphans": [asdict(each) for each in self.orphans],
            "sound": self.sound,
            "pending": self.pending,
            "rows": self.rows,
        }

    def __str__(self) -> str:
        first = [f"{each.table} {each.key} is {each.kind}" for each in self.differences[:3]]
        first += [f"{each.rows} rows of {each.table} refer to none by {each.constraint}" for each in self.orphans[:3]]
        return "; ".join(first)


def shown(column: str, value: str | None) -> str:
    """Return a value as a report shows it: shortened, and nothing of what might be a secret."""
    if value is None:
        return "NULL"
    if any(word in column.lower() for word in SECRET):
        return f"({len(value)} letters)"
    return value if len(value) <= MOST_SHOWN else f"{value[:MOST_SHOWN]}… ({len(value)} letters)"

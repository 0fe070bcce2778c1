"""
The matrix of applied and pending migrations per database, with the drift of schemas: as tables, and as data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from django.db import DEFAULT_DB_ALIAS
from rich.console import Console
from rich.table import Table

from sharding.migrating.databases import Databases
from sharding.migrating.drift import schema_drift
from sharding.migrating.schema import Difference
from sharding.migrating.survey import Answer, reason, survey
from sharding.migrating.target import Target


@dataclass(frozen=True, slots=True)
class Matrix:
    """What every database answered, and where the schemas of shards without pending migrations differ all the same."""

    answers: Mapping[str, Answer]
    drift: Sequence[Difference]
    compared: Sequence[str]
    not_compared: Sequence[str]

    @property
    def unreachable(self) -> list[str]:
        return [alias for alias, answer in self.answers.items() if answer.error]

    @property
    def unapplied(self) -> list[str]:
        return [alias for alias, answer in self.answers.items() if answer.pending]

    def complaint(self) -> str | None:
        """Return in one sentence a problem what is wrong, or None when every database is as it should be."""
        found = []
        if self.unreachable:
            found.append(f"Cannot be reached: {', '.join(self.unreachable)}.")
        if self.unapplied:
            found.append(f"Unapplied migrations: {', '.join(self.unapplied)}. Run `manage.py migrate_all`.")
        if self.drift:
            shards = sorted({difference.shard for difference in self.drift})
            found.append(
                f"The schema differs from the control database's: {', '.join(shards)}. "
                f"Bring it in line by hand, or by `manage.py migrate --database=<shard>` where a table is missing."
            )
        return " ".join(found) or None


def matrix(found: Databases, target: Target) -> Matrix:
    """Ask all databases. Schemas are compared where the shard and the control database have nothing pending."""
    control = DEFAULT_DB_ALIAS
    answers = survey(tuple(dict.fromkeys((*found.all, control))), target)
    settled = [alias for alias, answer in answers.items() if not answer.error and not answer.pending]
    compared = [alias for alias in found.shards if alias in settled and control in settled]
    return Matrix(
        {alias: answers[alias] for alias in found.all},
        schema_drift(compared),
        compared,
        [alias for alias in found.shards if alias not in compared],
    )


def show(found: Matrix, console: Console) -> None:
    """Print one line a database, one line a migration that is pending anywhere, and the drift."""
    console.print(_summary(found))
    if found.unapplied:
        console.print()
        console.print(_pending(found))
    if found.compared or found.not_compared:
        console.print()
    for difference in found.drift:
        console.print(str(difference))
    if found.not_compared:
        console.print(f"Schemas not compared: {', '.join(found.not_compared)}.")
    elif found.compared and not found.drift:
        console.print("The schemas of the shards agree with the control database's.")


def as_data(found: Matrix) -> dict[str, Any]:
    """Return the matrix as JSON takes it."""
    return {
        "databases": {
            alias: {
                "applied": list(answer.applied),
                "pending": list(answer.pending),
                "error": reason(answer.error) if answer.error else None,
            }
            for alias, answer in found.answers.items()
        },
        "drift": [asdict(difference) for difference in found.drift],
        "not_compared": list(found.not_compared),
    }


def _summary(found: Matrix) -> Table:
    table = _table("Database", "Applied", "Pending", "")
    for alias, answer in found.answers.items():
        if answer.error:
            table.add_row(alias, "?", "?", f"cannot be reached: {reason(answer.error)}")
        else:
            table.add_row(alias, str(len(answer.applied)), str(len(answer.pending)), "")
    return table


def _pending(found: Matrix) -> Table:
    asked = {alias: answer for alias, answer in found.answers.items() if not answer.error}
    table = _table("Migration", *asked)
    # In the order of the longest plan; what only others have comes after it.
    plans = sorted((answer.pending for answer in asked.values()), key=len, reverse=True)
    for migration in dict.fromkeys(name for plan in plans for name in plan):
        table.add_row(
            migration, *("pending" if migration in answer.pending else "applied" for answer in asked.values())
        )
    return table


def _table(*titles: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for title in titles:
        table.add_column(title)
    return table

"""
What a ``migrate`` of one database did not do: which others still have unapplied migrations.
"""

from __future__ import annotations

from collections.abc import Iterator

from sharding.migrating.databases import databases
from sharding.migrating.survey import reason, survey


def not_migrated(alias: str) -> Iterator[str]:
    """Yield a line on the other databases with unapplied migrations, and one for each that could not be asked."""
    others = [each for each in databases().all if each != alias]
    answers = survey(others)
    unapplied = [f"{each} ({len(answer.pending)} unapplied)" for each, answer in answers.items() if answer.pending]
    if unapplied:
        yield f"Only {alias} was migrated, not {', '.join(unapplied)}. Run `manage.py migrate_all` to migrate them too."
    for each, answer in answers.items():
        if answer.error is not None:
            yield f"Whether {each} has unapplied migrations could not be asked: {reason(answer.error)}"

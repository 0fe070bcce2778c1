"""
Migrate all databases, stage by stage, and say what became of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from sharding.errors import MigrationFailed
from sharding.migrating.copies import copy_reference_rows
from sharding.migrating.databases import Databases
from sharding.migrating.one_database import Outcome, Patience, migrate_database
from sharding.migrating.order import stages
from sharding.migrating.reporting import Reporter
from sharding.migrating.survey import Answer, reason, survey
from sharding.migrating.target import Target
from sharding.moves_lock import without_moves

AGAIN = "Correct the cause and run `manage.py migrate_all` again: what is applied is not repeated."


@dataclass(frozen=True, slots=True)
class Result:
    """The databases of a run: what became of those that were tried, and why others were not."""

    outcomes: Mapping[str, Outcome]
    unreachable: Mapping[str, Exception]
    not_started: tuple[str, ...]
    #: Shards that were migrated, but could not be given the rows of reference models, and why.
    not_copied: Mapping[str, Exception] = field(default_factory=dict)

    @property
    def failures(self) -> dict[str, Exception]:
        failed = {alias: outcome.error for alias, outcome in self.outcomes.items() if outcome.error is not None}
        return {**failed, **self.unreachable, **self.not_copied}

    def require_success(self) -> None:
        """
        Raises:
            MigrationFailed: a database was not migrated; the message names each, and why.
        """
        failures = self.failures
        if not failures:
            return
        lines = [self._line(alias, error) for alias, error in failures.items()]
        if self.not_started:
            lines.append(f"Not started because of that: {', '.join(self.not_started)}.")
        raise MigrationFailed("\n".join([*lines, AGAIN]), failures=failures)

    def _line(self, alias: str, error: Exception) -> str:
        if alias in self.unreachable:
            return f"{alias} was not migrated, it cannot be reached: {reason(error)}"
        if alias in self.not_copied:
            return f"{alias} was migrated, but not given the rows of reference models: {reason(error)}"
        where = self.outcomes[alias].failed
        return f"{alias} was not migrated{f', {where} failed' if where else ''}: {reason(error)}"


def migrate_all(found: Databases, target: Target, patience: Patience, *, parallel: int, reporter: Reporter) -> Result:
    """
    Migrate the databases, at most ``parallel`` shards at once; a stage that fails is the last one.

    Raises:
        MigrationFailed: buckets are being moved.
    """
    with without_moves():
        return _migrate_all(found, target, patience, parallel, reporter)


def _migrate_all(found: Databases, target: Target, patience: Patience, parallel: int, reporter: Reporter) -> Result:
    answers = survey(found.all, target)
    unreachable = {alias: answer.error for alias, answer in answers.items() if answer.error is not None}
    for alias, error in unreachable.items():
        reporter.say(alias, f"cannot be reached: {reason(error)}")
    outcomes: dict[str, Outcome] = {}
    with reporter.counting(sum(len(answer.pending) for answer in answers.values())):
        for stage in stages(found, answers):
            outcomes.update(_migrated(stage, target, patience, parallel, reporter))
            if any(outcomes[alias].error for alias in stage):
                return Result(outcomes, unreachable, _not_started(answers, outcomes))
    reached = [] if unreachable.keys() & found.control else [each for each in found.shards if each not in unreachable]
    not_copied = copy_reference_rows(reached, patience, reporter)
    return Result(outcomes, unreachable, _not_started(answers, outcomes), not_copied)


def _migrated(
    stage: tuple[str, ...], target: Target, patience: Patience, parallel: int, reporter: Reporter
) -> dict[str, Outcome]:
    with ThreadPoolExecutor(parallel, "migrate") as pool:
        try:
            done = pool.map(lambda alias: migrate_database(alias, target, patience, reporter), stage)
            return dict(zip(stage, done, strict=True))
        except KeyboardInterrupt:
            # What runs is finished, so that it is not half done; what waits is not begun.
            patience.stop()
            pool.shutdown(wait=False, cancel_futures=True)
            reporter.say(", ".join(stage), "stopping, after the migration that runs")
            raise


def _not_started(answers: Mapping[str, Answer], outcomes: Mapping[str, Outcome]) -> tuple[str, ...]:
    return tuple(alias for alias, answer in answers.items() if answer.pending and alias not in outcomes)

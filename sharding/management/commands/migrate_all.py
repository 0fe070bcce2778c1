"""Migrate the control database, the app databases and all shards, or show what is pending where."""

from __future__ import annotations

import json
import math
from argparse import ArgumentParser, ArgumentTypeError
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from sharding import conf
from sharding.errors import MigrationFailed
from sharding.management.exit_codes import INTERRUPTED
from sharding.management.server_warnings import server_warnings
from sharding.migrating import matrix
from sharding.migrating.databases import databases
from sharding.migrating.one_database import Patience
from sharding.migrating.reporting import Reporter, console_on
from sharding.migrating.run import Result, migrate_all
from sharding.migrating.survey import reason
from sharding.migrating.target import Target


class Command(BaseCommand):
    help = "Migrates the control database, then the app databases, then one shard, then all other shards."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("app_label", nargs="?", help="App to migrate. All apps by default.")
        parser.add_argument(
            "migration_name", nargs="?", help='Migration to go to, forwards or backwards; "zero" unapplies all.'
        )
        parser.add_argument(
            "--database",
            action="append",
            default=[],
            metavar="ALIAS",
            help="Only this database. May be given several times.",
        )
        parser.add_argument(
            "--plan", action="store_true", help="Show what is applied and pending where; change nothing."
        )
        parser.add_argument(
            "--check",
            action="store_true",
            help="Like --plan, and exit with 1 when anything is pending, out of reach, or of another schema.",
        )
        parser.add_argument("--json", action="store_true", help="Print one JSON object instead of text.")
        parser.add_argument(
            "--parallel", type=_positive, default=4, metavar="N", help="Shards migrated at once (default: 4)."
        )
        parser.add_argument(
            "--lock-timeout",
            type=_seconds,
            default=Patience().lock_timeout,
            metavar="SECONDS",
            help="How long a statement may wait for a lock before the migration is rolled back (default: 5).",
        )
        parser.add_argument(
            "--retries",
            type=_count,
            default=Patience().retries,
            metavar="N",
            help="How often a migration that waited too long is tried again (default: 5).",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        target = Target(options["app_label"], options["migration_name"])
        target.require()
        found = databases(options["database"])
        if options["plan"] or options["check"]:
            self._show(matrix.matrix(found, target), options)
            return
        patience = Patience(options["lock_timeout"], options["retries"])
        quiet = options["json"] or options["verbosity"] == 0
        reporter = Reporter(console_on(self.stdout), quiet=quiet)
        try:
            result = migrate_all(found, target, patience, parallel=options["parallel"], reporter=reporter)
        except MigrationFailed as error:
            raise CommandError(str(error)) from error
        except KeyboardInterrupt:
            raise CommandError(
                "Interrupted. Run `manage.py migrate_all` again to go on: what is applied is not repeated.",
                returncode=INTERRUPTED,
            ) from None
        if options["json"]:
            self.stdout.write(json.dumps(_as_data(result), indent=2) + "\n")
        try:
            result.require_success()
        except MigrationFailed as error:
            raise CommandError(str(error)) from error
        if not quiet and not any(outcome.done for outcome in result.outcomes.values()):
            reporter.console.print("No migrations to apply.")
        for line in () if quiet else server_warnings(found.shards):
            reporter.console.print(line)

    def _show(self, found: matrix.Matrix, options: dict[str, Any]) -> None:
        if options["json"]:
            self.stdout.write(json.dumps(matrix.as_data(found), indent=2) + "\n")
        elif options["verbosity"] > 0:
            matrix.show(found, console_on(self.stdout))
        complaint = found.complaint()
        if options["check"] and complaint:
            raise CommandError(complaint)


def _as_data(result: Result) -> dict[str, Any]:
    tried = [(outcome.alias, outcome.done, outcome.failed, outcome.error) for outcome in result.outcomes.values()]
    out_of_reach: list[Any] = [(alias, [], None, error) for alias, error in result.unreachable.items()]
    behind: list[Any] = [
        (alias, result.outcomes[alias].done if alias in result.outcomes else [], None, error)
        for alias, error in result.not_copied.items()
    ]
    return {
        "databases": {
            alias: {"done": done, "failed": failed, "error": reason(error) if error else None}
            for alias, done, failed, error in [*tried, *out_of_reach, *behind]
        },
        "not_started": list(result.not_started),
    }


def _count(text: str) -> int:
    return int(_number(text, int, 0))


def _positive(text: str) -> int:
    return int(_number(text, int, 1))


def _seconds(text: str) -> float:
    # PostgreSQL takes 0 for "wait for ever", which is what this option is there to prevent.
    return _number(text, float, 0.001, conf.MAX_TIMEOUT)


def _number(text: str, kind: type[int] | type[float], least: float, most: float = math.inf) -> float:
    try:
        value = kind(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ArgumentTypeError(f"{text!r} is not a number.")
    if value < least:
        raise ArgumentTypeError(f"{text} is too small; the least is {least:g}.")
    if value > most:
        raise ArgumentTypeError(f"{text} is too large; the most is {most}.")
    return value

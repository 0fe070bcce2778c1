"""`shards recover`: finish the transactions over several databases that a crash left half done, or undo their parts."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from collections.abc import Sequence
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import Error, close_old_connections
from rich.console import Console

from sharding import conf
from sharding.commits import compensating, recovery
from sharding.commits.compensating import Compensated
from sharding.commits.resolver import InDoubt, Resolution
from sharding.management import compensations
from sharding.operations.display import table
from sharding.operations.status import reason

HELP = "Finish the transactions over several databases that a crash left half done."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--watch", type=float, nargs="?", const=5.0, metavar="SECONDS", help="Go on, looking every 5 seconds."
    )
    parser.add_argument(
        "--min-age", type=float, metavar="SECONDS", help="Give up what is undecided for so long; else RECOVER_AFTER."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object (one a line with --watch).")


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    for name in ("watch", "min_age"):
        if options[name] is not None and not 0 <= options[name] <= conf.MAX_TIMEOUT:
            raise CommandError(f"--{name.replace('_', '-')} must be a number of seconds, not {options[name]}.")
    if options["watch"] is None:
        done, compensated = recovery.resolve_now(min_age=options["min_age"]), compensating.recover()
        _show(command, console, done, compensated, options)
        if done.failures:
            raise CommandError(f"Not every database could be dealt with: {', '.join(sorted(done.failures))}.")
        problem = compensations.problem(compensated)
        if problem is not None:
            raise CommandError(problem)
        return
    _watch(command, console, options)


def _watch(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    try:
        while True:
            try:
                # Compensations use the connections of this thread, and servers are restarted now and then.
                close_old_connections()
                done, compensated = recovery.resolve_now(min_age=options["min_age"]), compensating.recover()
                if done.committed or done.rolled_back or done.failures or compensated.happened or options["json"]:
                    _show(command, console, done, compensated, options)
            except Error as error:
                command.stderr.write(f"The control database does not answer: {reason(error)}")
            time.sleep(options["watch"])
    except KeyboardInterrupt:
        # Every step is whole: there is nothing to clean up.
        return


def _show(
    command: BaseCommand, console: Console, done: Resolution, compensated: Compensated, options: dict[str, Any]
) -> None:
    if options["json"]:
        both = {**data(done), "compensations": compensations.data(compensated)}
        command.stdout.write(json.dumps(both, indent=None if options["watch"] is not None else 2) + "\n")
        # Who reads a pipe waits for it.
        command.stdout.flush()
        return
    compensations.show(compensated, console)
    outcomes = (("committed", done.committed), ("rolled back", done.rolled_back), ("too young", done.left))
    if not any(found for _, found in outcomes) and not done.failures:
        if compensated.happened:
            return
        console.print("Nothing is in doubt.")
        return
    shown = table("database", "transaction", "age", "outcome", right=("age",))
    for outcome, found in outcomes:
        for each in found:
            shown.add_row(each.alias, each.gid.transaction, f"{each.age:,.1f} s", outcome)
    if shown.row_count:
        console.print(shown)
    if done.left:
        console.print("\nWhat is too young may still be at work. Run this again, or with --min-age 0.")
    for alias, error in done.failures.items():
        console.print(f"{alias}: {reason(error)}")


def data(done: Resolution) -> dict[str, Any]:
    """Return what one pass did, as plain values; ages are in seconds."""
    return {
        "complete": done.is_complete,
        "committed": _listed(done.committed),
        "rolled_back": _listed(done.rolled_back),
        "left": _listed(done.left),
        "failures": {alias: reason(error) for alias, error in done.failures.items()},
    }


def _listed(found: Sequence[InDoubt]) -> list[dict[str, Any]]:
    return [{"database": each.alias, "transaction": each.gid.transaction, "age": each.age} for each in found]

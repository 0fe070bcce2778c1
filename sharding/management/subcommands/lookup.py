"""`shards lookup`: fill the lookups of sharded models, and compare them with the rows."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from sharding.lookups.declaration import Lookup
from sharding.operations import lookups
from sharding.operations.audit_report import expected_rows
from sharding.operations.display import table
from sharding.operations.lookup_rows import MEANING, Finding, Kind, Step
from sharding.operations.lookups import OnStep, Report

HELP = "Fill lookups, and compare them with the rows."

#: Of the examples of each kind.
SHOWN = 3


def add_arguments(parser: ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", required=True, metavar="build|verify")
    build = actions.add_parser("build", help="Give every row its entry; then the lookup answers queries.")
    verify = actions.add_parser("verify", help="Compare every row with its entry, and every entry with its row.")
    verify.add_argument("--repair", action="store_true", help="Put entries right. No row is changed.")
    for action in (build, verify):
        action.add_argument(
            "lookups", nargs="*", metavar="NAME", help="Names of lookups, or labels of models; all if none is given."
        )
        action.add_argument("--json", action="store_true", help="Print one JSON object instead of text.")


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    found = lookups.named(options["lookups"])
    with _progress(command, found, options) as on_step:
        reports = [_report(each, on_step, options) for each in found]
    if options["json"]:
        command.stdout.write(json.dumps({"lookups": [data(each) for each in reports]}, indent=2, default=str) + "\n")
    else:
        _show(reports, console, options["action"])
    wrong = [each for each in reports if each.wrong]
    if wrong and options["action"] == "build":
        raise CommandError(
            f"Not built: {_names(wrong)}. Give the rows that share a value different ones, and build again."
        )
    if wrong:
        raise CommandError(f"Not all entries are right: {sum(each.wrong for each in wrong):,} in {_names(wrong)}.")


def _report(lookup: Lookup, on_step: OnStep, options: dict[str, Any]) -> Report:
    if options["action"] == "build":
        return lookups.build(lookup, on_step)
    return lookups.verify(lookup, repair=options["repair"], on_step=on_step)


@contextmanager
def _progress(command: BaseCommand, found: list[Lookup], options: dict[str, Any]) -> Iterator[Callable[[Step], None]]:
    """Show a bar on stderr, if that is a terminal."""
    if options["json"] or options["verbosity"] == 0 or not command.stderr.isatty():
        yield lambda step: None
        return
    expected = [expected_rows([each.sharded._meta.label]) for each in found]
    sides = 1 if options["action"] == "build" else 2
    total = None if None in expected else sides * sum(filter(None, expected))
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Reading", total=total)
        yield lambda step: bar.update(task, advance=step.rows, description=f"{step.lookup} on {step.shard}")


def _names(reports: list[Report]) -> str:
    return ", ".join(each.lookup.name for each in reports)


def _show(reports: list[Report], console: Console, action: str) -> None:
    if not reports:
        console.print("No model declares a lookup.")
        return
    console.print(_overview(reports, action))
    for each in reports:
        # What a build adds is no finding.
        tallies = {at: tally for at, tally in each.tallies.items() if action == "verify" or tally.rows > tally.repaired}
        if not tallies:
            continue
        shown = table("database", "rows", "repaired", "what is wrong", right=("rows", "repaired"))
        for (shard, kind), tally in tallies.items():
            shown.add_row(shard, f"{tally.rows:,}", f"{tally.repaired:,}", MEANING[kind])
        console.print(f"\n{each.lookup.name}:")
        console.print(shown)
        for tally in tallies.values():
            for example in tally.examples[:SHOWN]:
                console.print(Padding(_example(each, example), (0, 0, 0, 2), expand=False))


def _overview(reports: list[Report], action: str) -> Any:
    names = (
        ("lookup", "rows", "added", "built") if action == "build" else ("lookup", "rows", "entries", "wrong", "built")
    )
    shown = table(*names, right=("rows", "added", "entries", "wrong"))
    for each in reports:
        counts = [each.repaired] if action == "build" else [each.entries, each.wrong]
        numbers = [f"{count:,}" for count in (each.rows, *counts)]
        shown.add_row(each.lookup.name, *numbers, "yes" if each.built else "NO")
    return shown


def _example(report: Report, finding: Finding) -> str:
    row = f"{report.lookup.sharded._meta.label} {finding.pk!s} on {finding.shard}: {MEANING[finding.kind]}"
    return f"{row}: {finding.other!s}, bucket {finding.others_bucket}" if finding.kind is Kind.TAKEN else row


def data(report: Report) -> dict[str, Any]:
    """Return a report as plain values. Values of rows are not among them: they may be personal."""
    return {
        "lookup": report.lookup.name,
        "model": report.lookup.sharded._meta.label,
        "rows": report.rows,
        "entries": report.entries,
        "built": report.built,
        "wrong": report.wrong,
        "repaired": report.repaired,
        "findings": [
            {
                "database": shard,
                "kind": str(kind),
                "rows": tally.rows,
                "repaired": tally.repaired,
                "examples": [{"id": each.pk, "other": each.other} for each in tally.examples],
            }
            for (shard, kind), tally in report.tallies.items()
        ],
    }

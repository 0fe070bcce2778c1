"""`rebalance verify`: compare the rows of moves under way on both shards, and show what was found before."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from sharding.management.rebalance_control import add_json, add_selection, control, selected_plan
from sharding.operations.display import NOTHING, table
from sharding.rebalance.rechecking import Recheck, recheck

HELP = "Compare the rows of moves on both shards now, or show what was found when each bucket changed hands."


def add_arguments(parser: ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument("--stored", action="store_true", help="Compare nothing now; show what was found before.")
    add_json(parser)


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    with control() as session:
        plan = selected_plan(session, options)
        found = list(recheck(session, plan, buckets=options["bucket"], stored=options["stored"]))
    if options["json"]:
        command.stdout.write(json.dumps([each.as_json() for each in found], indent=2) + "\n")
    else:
        _show(console, found)
    wrong = [each for each in found if not each.sound]
    if wrong:
        raise CommandError(f"{len(wrong)} of {len(found)} moves have rows that differ.")


def _show(console: Console, found: list[Recheck]) -> None:
    if not found:
        console.print("There is nothing to compare: no move has copied rows.")
        return
    numbers = ("bucket", "rows", "noted", "differ")
    shown = table("bucket", "from", "to", "phase", "rows", "noted", "differ", "when", right=numbers)
    for each in found:
        report = each.report
        shown.add_row(
            str(each.bucket),
            each.source,
            each.target,
            each.phase,
            f"{report['rows']:,}",
            f"{report['pending']:,}" if report["pending"] else NOTHING,
            f"{report['different']:,}" if report["different"] else NOTHING,
            each.when,
        )
    console.print(shown)
    for each in found:
        if each.error:
            console.print(f"\nBucket {each.bucket}: {each.error}")

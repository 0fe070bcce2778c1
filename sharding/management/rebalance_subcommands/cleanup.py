"""`rebalance cleanup`: find what moves have left, and take it away."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand
from django.db import DEFAULT_DB_ALIAS
from rich.console import Console

from sharding import cluster_map, conf
from sharding.management.rebalance_control import add_json, control
from sharding.operations.display import table
from sharding.rebalance import cleaning

HELP = "Show what moves have left on the shards that none of them needs any more; take it away with --apply."


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--apply", action="store_true", help="Take it away.")
    add_json(parser)


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    aliases = tuple(sorted({DEFAULT_DB_ALIAS, *conf.current().shards, *cluster_map.refresh().aliases}))
    with control() as session:
        found = cleaning.leftovers(session, aliases)
        done = cleaning.clean(session, found) if options["apply"] else []
    if options["json"]:
        data = {"found": [each.as_json() for each in found], "cleaned": [each.as_json() for each in done]}
        command.stdout.write(json.dumps(data, indent=2) + "\n")
        return
    if not found:
        console.print("Moves have left nothing.")
        return
    shown = table("database", "bucket", "what", "detail", "outcome", right=("bucket",))
    for each in found:
        outcome = "taken away" if each in done else ("a move needs it" if options["apply"] else "left")
        shown.add_row(each.alias, str(each.bucket), each.kind, each.detail, outcome)
    console.print(shown)
    if not options["apply"]:
        console.print("\nNothing was changed. Rows that a fence hides are deleted with --apply.")

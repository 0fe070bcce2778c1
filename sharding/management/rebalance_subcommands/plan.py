"""`rebalance plan`: show which buckets would move, and what that brings."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import asdict
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.padding import Padding

from sharding.management.rebalance_arguments import byte_count, capacity, part
from sharding.management.rebalance_findings import show_findings
from sharding.management.shards_arguments import once, weight
from sharding.operations.display import size, table
from sharding.rebalance import plan_file, preflight
from sharding.rebalance.chart import show_plan
from sharding.rebalance.expected_time import Rate
from sharding.rebalance.finding import Severity
from sharding.rebalance.load import BY
from sharding.rebalance.proposing import Proposal, propose
from sharding.rebalance.wishes import Wish

HELP = "Show which buckets would move, and what that brings. Nothing is changed."


def add_arguments(parser: ArgumentParser) -> None:
    _add_aims(parser)
    _add_limits(parser)
    parser.add_argument(
        "--check", action="store_true", help="Look at everything that could stop a move before the first one."
    )
    parser.add_argument("--output", type=Path, metavar="FILE", help="Write the plan to a file, as JSON.")
    parser.add_argument("--json", action="store_true", help="Print what the file would hold instead of text.")
    parser.add_argument(
        "--rate", type=byte_count, metavar="SIZE", help="How much is copied in a second, such as 50MB (assumed: 20MB)."
    )


def _add_aims(parser: ArgumentParser) -> None:
    _add_aliases(parser, "--add", "Bring buckets to these new shards; nothing moves between the others.")
    _add_aliases(parser, "--drain", "Empty these shards.")
    parser.add_argument(
        "--isolate",
        metavar="[MODEL:]KEY",
        help="Give the bucket of a shard key a shard of its own; as 42, or shop.Order:42.",
    )
    parser.add_argument("--to", metavar="ALIAS", help="That shard; the first empty one if none is given.")
    parser.add_argument("--shared", action="store_true", help="That shard keeps its other buckets.")
    parser.add_argument(
        "--weights",
        nargs="+",
        action="extend",
        type=weight,
        default=[],
        metavar="ALIAS=N",
        help="Other shares than those in SHARDING.",
    )


def _add_limits(parser: ArgumentParser) -> None:
    _add_aliases(parser, "--only", "The shards that may receive buckets; the others only give.")
    _add_aliases(parser, "--reserve", "Shards that have what is pinned to them, and nothing else.")
    parser.add_argument(
        "--capacity",
        nargs="+",
        action="extend",
        type=capacity,
        default=[],
        metavar="ALIAS=SIZE",
        help="How much a shard can hold, such as shard_a=200GB.",
    )
    parser.add_argument("--by", choices=BY, default="bytes", help="What is balanced (default: bytes).")
    parser.add_argument(
        "--threshold",
        type=float,
        default=0.1,
        metavar="PART",
        help="How far from its fair share a shard may be before anything moves (default: 0.1).",
    )
    parser.add_argument(
        "--tolerance", type=float, default=0.01, metavar="PART", help="How far when all is done (default: 0.01)."
    )
    parser.add_argument(
        "--sample",
        type=part,
        metavar="PART",
        help="Weigh this part of the rows, such as 0.01; without it, the rows of a table count as equally long.",
    )


def _add_aliases(parser: ArgumentParser, option: str, text: str) -> None:
    parser.add_argument(option, nargs="+", action="extend", default=[], metavar="ALIAS", help=text)


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    found = propose(_wish(options))
    if options["output"] is not None:
        _write(found, options["output"])
    checked = preflight.findings_of(found.plan, capacity=once(options["capacity"], "")) if options["check"] else None
    if not options["json"]:
        _show(found, console, options)
        if checked is not None:
            show_findings(checked, console)
    elif checked is None:
        command.stdout.write(plan_file.to_json(found.plan))
    else:
        both = {"plan": json.loads(plan_file.to_json(found.plan)), "findings": [asdict(each) for each in checked]}
        command.stdout.write(json.dumps(both, indent=1, ensure_ascii=False) + "\n")
    errors = sum(each.severity is Severity.ERROR for each in checked or ())
    if errors:
        raise CommandError(f"The moves cannot begin: {errors} {'error was' if errors == 1 else 'errors were'} found.")


def _wish(options: dict[str, Any]) -> Wish:
    return Wish(
        add=tuple(options["add"]),
        drain=tuple(options["drain"]),
        isolate=options["isolate"],
        to=options["to"],
        shared=options["shared"],
        weights=once(options["weights"], "--weights names the shard"),
        capacity=once(options["capacity"], "--capacity names the shard"),
        only=tuple(options["only"]),
        reserve=tuple(options["reserve"]),
        by=options["by"],
        threshold=options["threshold"],
        tolerance=options["tolerance"],
        sample=options["sample"],
    )


def _write(found: Proposal, path: Path) -> None:
    try:
        plan_file.write(found.plan, path)
    except OSError as error:
        raise CommandError(f"The plan cannot be written to {str(path)!r}: {error.strerror}.") from error


def _show(found: Proposal, console: Console, options: dict[str, Any]) -> None:
    given = options["rate"]
    show_plan(found.plan, console, rate=None if given is None else Rate(bytes=given, source="given"))
    if found.neighbours:
        _show_neighbours(found, console)
    for note in found.notes:
        console.print(Padding(note, (0, 0, 0, 2), expand=False))
    if options["output"] is not None:
        console.print(f"\nWritten to {options['output']}. Nothing else was changed.")
    else:
        console.print("\nNothing was changed.")


def _show_neighbours(found: Proposal, console: Console) -> None:
    shown = table("comes along", "rows", "size")
    for each in found.neighbours:
        shown.add_row(each.name, f"{each.size.rows:,}", size(each.size.bytes))
    console.print()
    console.print(shown)

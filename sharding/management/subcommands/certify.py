"""`shards certify`: let a shard that was restored from a backup agree with the bucket map again."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from sharding.fence.agreement import Kind
from sharding.operations import certification
from sharding.operations.certification import DOUBTFUL, Doubt, Look
from sharding.operations.display import NOTHING, table

HELP = "Compare the fence of a restored shard with the bucket map, and make them agree."

#: Buckets that are shown one by one.
SHOWN = 20
MEANING = {
    Kind.FOREIGN: "shown here, and another shard's by the map",
    Kind.MISSING: "this shard's by the map, and not shown here",
    Kind.OUTDATED: "has come back since this backup",
    Kind.UNSETTLED: "was on its way when this backup was made",
}


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("alias", metavar="ALIAS", help="The shard.")
    parser.add_argument("--apply", action="store_true", help="Hide the buckets of other shards. No row is deleted.")
    parser.add_argument(
        "--accept-rows",
        action="store_true",
        help="With --apply: of the shard's own buckets, the rows that are here count from now on.",
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object instead of text.")


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    alias = options["alias"]
    if options["accept_rows"] and not options["apply"]:
        raise CommandError("--accept-rows changes something, so it needs --apply. Look first, without both.")
    found = certification.look(alias)
    left = None
    if not options["json"]:
        _show(found, console)
    if options["apply"]:
        left = certification.certify(alias, accept_rows=options["accept_rows"])
    if options["json"]:
        command.stdout.write(json.dumps(data(found, left), indent=2) + "\n")
    if left is None:
        certification.refuse_moving(found)
        if found.doubts:
            raise CommandError(
                f"{alias} is not certified: its fence and the bucket map disagree about {_buckets(found.doubts)}. Run "
                f"this again with --apply."
            )
        return
    if left.doubts:
        raise CommandError(
            f"{alias} is not certified yet: {_buckets(left.doubts)} of its own may lack rows that came after the "
            f"backup. If you accept the rows that are here, run this again with --apply --accept-rows."
        )
    if not options["json"]:
        console.print(f"\n{alias} is certified at epoch {left.epoch}.")


def _show(found: Look, console: Console) -> None:
    if not found.doubts:
        console.print(f"The fence of {found.alias} agrees with epoch {found.epoch} of the bucket map.")
        return
    shown = table("bucket", "fence", "owner", "rows here", "elsewhere", "what is wrong", right=("bucket", "rows here"))
    for doubt in found.doubts[:SHOWN]:
        shown.add_row(
            str(doubt.found.bucket),
            NOTHING if doubt.found.fence is None else f"{doubt.found.fence.state} since {doubt.found.fence.epoch}",
            f"{doubt.found.owner.shard} since {doubt.found.owner.epoch}",
            f"{doubt.here:,}",
            _elsewhere(doubt),
            MEANING[doubt.found.kind] if doubt.found.moving is None else f"is moving: {doubt.found.moving}",
        )
    console.print(shown)
    if len(found.doubts) > SHOWN:
        console.print(f"and {len(found.doubts) - SHOWN:,} more.")
    console.print()
    for kind, meaning in MEANING.items():
        doubts = found.of({kind})
        if doubts:
            console.print(f"{_buckets(doubts)} with {sum(each.here for each in doubts):,} rows here: {meaning}.")


def _elsewhere(doubt: Doubt) -> str:
    counted = (f"{alias}: {'?' if rows is None else f'{rows:,}'}" for alias, rows in doubt.elsewhere.items())
    return ", ".join(counted) or NOTHING


def _buckets(doubts: Any) -> str:
    return "1 bucket" if len(doubts) == 1 else f"{len(doubts):,} buckets"


def data(found: Look, left: Look | None) -> dict[str, Any]:
    """Return what was found, and whether it is right now, as plain values."""
    after = found if left is None else left
    return {
        "shard": found.alias,
        "epoch": found.epoch,
        "certified": not after.doubts,
        "buckets": [
            {
                "bucket": doubt.found.bucket,
                "kind": doubt.found.kind.value,
                "state": None if doubt.found.fence is None else doubt.found.fence.state.value,
                "fence_epoch": None if doubt.found.fence is None else doubt.found.fence.epoch,
                "owner": doubt.found.owner.shard,
                "owner_epoch": doubt.found.owner.epoch,
                "rows": doubt.here,
                "elsewhere": dict(doubt.elsewhere),
                "moving": None if doubt.found.moving is None else str(doubt.found.moving),
                "needs_acceptance": doubt.found.kind in DOUBTFUL,
            }
            for doubt in found.doubts
        ],
        "left": [doubt.found.bucket for doubt in after.doubts],
    }

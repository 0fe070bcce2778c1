"""`shards deadlocks`: show who waits for whom over all servers, and end the youngest block of each circle."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console

from sharding import conf
from sharding.commits import sessions
from sharding.operations import lock_waits
from sharding.operations.display import table
from sharding.operations.lock_waits import Look
from sharding.operations.wait_graph import Deadlock, Session, Wait

HELP = "Show which blocks wait for each other on several servers, and end the youngest of them."
#: Seconds between two looks of --watch.
EVERY = 5.0


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--end", action="store_true", help="End the youngest block of each deadlock.")
    parser.add_argument(
        "--watch", type=float, nargs="?", const=EVERY, metavar="SECONDS", help="Go on, looking every 5 seconds."
    )
    parser.add_argument("--json", action="store_true", help="Print one JSON object (one a line with --watch).")


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    if options["watch"] is not None and not 0 < options["watch"] <= conf.MAX_TIMEOUT:
        raise CommandError(f"--watch must be a positive number of seconds, not {options['watch']}.")
    if not sessions.aliases():
        raise CommandError("Only PostgreSQL tells who waits for whom, and no database of this project is one.")
    if options["watch"] is not None:
        _watch(command, console, options)
        return
    found = lock_waits.look(end=options["end"])
    _show(command, console, found, options)
    _refuse_unsound(found)


def _refuse_unsound(found: Look) -> None:
    if found.failures:
        raise CommandError(f"Not every database could be dealt with: {', '.join(found.failures)}.")
    left = [each for each in found.deadlocks if each.victim not in found.ended]
    if left:
        deadlocks = "1 deadlock is" if len(left) == 1 else f"{len(left)} deadlocks are"
        raise CommandError(f"{deadlocks} left. Run `manage.py shards deadlocks --end`, or wait for LOCK_TIMEOUT.")


def _watch(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    try:
        while True:
            found = lock_waits.look(end=options["end"])
            if found.deadlocks or found.failures or options["json"]:
                _show(command, console, found, options)
            time.sleep(options["watch"])
    except KeyboardInterrupt:
        # Nothing is kept between two looks.
        return


def _show(command: BaseCommand, console: Console, found: Look, options: dict[str, Any]) -> None:
    if options["json"]:
        text = json.dumps(data(found), indent=None if options["watch"] is not None else 2)
        command.stdout.write(text + "\n")
        # Who reads a pipe waits for it.
        command.stdout.flush()
        return
    _show_waits(console, found)
    for each in found.deadlocks:
        outcome = "was ended" if each.victim in found.ended else "is the youngest"
        console.print(f"\nDeadlock: {_circle(each)}. {each.victim} {outcome}.")
    if not found.deadlocks:
        console.print("\nNo deadlock." if found.waits else "Nobody waits for a lock.")
    for alias, why in found.failures.items():
        console.print(f"{alias}: {why}")


def _show_waits(console: Console, found: Look) -> None:
    if not found.waits:
        return
    shown = table("database", "block", "waits for", "seconds", "statement", right=("seconds",))
    for wait in found.waits:
        shown.add_row(
            wait.waiting.alias, wait.waiting.block, _holder(wait.blocking), f"{wait.waited:,.1f}", wait.statement
        )
    console.print(shown)


def _holder(session: Session) -> str:
    # The name of an ended block's transaction says so itself.
    return f"{session.block} (prepared)" if session.pid is None and session.is_ours else session.block


def _circle(deadlock: Deadlock) -> str:
    steps = [f"{wait.waiting.block} waits on {wait.waiting.alias} for" for wait in deadlock.waits]
    return " ".join([*steps, deadlock.blocks[0]])


def data(found: Look) -> dict[str, Any]:
    """Return what was found, as plain values."""
    return {
        "sound": found.is_sound,
        "waits": [_wait(each) for each in found.waits],
        "deadlocks": [
            {
                "blocks": list(each.blocks),
                "databases": [wait.waiting.alias for wait in each.waits],
                "youngest": each.victim,
                "ended": each.victim in found.ended,
            }
            for each in found.deadlocks
        ],
        "failures": dict(found.failures),
    }


def _wait(wait: Wait) -> dict[str, Any]:
    return {
        "database": wait.waiting.alias,
        "block": wait.waiting.block,
        "pid": wait.waiting.pid,
        "waits_for": wait.blocking.block,
        "blocking_pid": wait.blocking.pid,
        "seconds": wait.waited,
        "statement": wait.statement,
    }

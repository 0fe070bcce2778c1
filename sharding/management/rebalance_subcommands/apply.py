"""`rebalance apply`: move the buckets of a plan, or go on with the moves that are under way."""

from __future__ import annotations

import json
import os
import signal
import threading
from argparse import ArgumentParser
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.live import Live

from sharding.management.exit_codes import INTERRUPTED
from sharding.management.rebalance_control import add_json, control
from sharding.management.rebalance_findings import show_findings
from sharding.management.rebalance_subcommands.status import Speeds
from sharding.rebalance import moves_display, plan_file, preflight
from sharding.rebalance.applying import Run, end_windows
from sharding.rebalance.finding import Severity
from sharding.rebalance.options import MOST_TOGETHER, Options
from sharding.rebalance.overview import MoveStatus, Overview, latest_plan, overview
from sharding.rebalance.registering import register
from sharding.rebalance.sessions import Session

HELP = "Move the buckets of a plan, or go on with the moves that are under way."
DEFAULTS = Options()
#: Lines that a log has of many buckets.
TENTH = 10
#: Seconds: some 30 years.
LONGEST_WINDOW = 1e9


def add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--plan", type=Path, metavar="FILE", help="A plan that `rebalance plan --output` has written.")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="Rounds that go on at a time (default: 2).")
    parser.add_argument(
        "--per-shard", type=int, default=DEFAULTS.per_shard, metavar="N", help="At most with one shard (default: 2)."
    )
    parser.add_argument(
        "--together",
        type=int,
        default=DEFAULTS.together,
        metavar="N",
        help=f"Small buckets that go over in one round, 1 to {MOST_TOGETHER} (default: {DEFAULTS.together}).",
    )
    parser.add_argument(
        "--window",
        type=float,
        default=DEFAULTS.window,
        metavar="SECONDS",
        help="How long each move can be taken back afterwards (default: 600).",
    )
    parser.add_argument("--to-the-end", action="store_true", help="Wait until the windows are over, too.")
    parser.add_argument("--end-windows", action="store_true", help="End the windows of moves that are done, now.")
    parser.add_argument(
        "--share",
        type=float,
        default=DEFAULTS.share,
        metavar="PART",
        help=f"The part of the time in which rows are copied (default: {DEFAULTS.share:g}).",
    )
    parser.add_argument("--rows-per-second", type=float, metavar="N", help="The most rows that each job copies.")
    parser.add_argument(
        "--replica-lag",
        type=float,
        default=DEFAULTS.replica_lag,
        metavar="SECONDS",
        help="Wait while a standby is farther behind (default: 10).",
    )
    add_json(parser)


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    made = _options(options)
    with control() as session:
        plan = _registered(session, console, options) if options["plan"] else latest_plan(session)
        if plan is None or (overview(session, plan).is_over and not options["plan"]):
            raise CommandError(
                "No moves are under way. Make a plan with `manage.py rebalance plan --output plan.json`, "
                "and give it to --plan."
            )
        if options["end_windows"]:
            end_windows(session, plan)
        shown = _Shown(console, overview(session, plan), quiet=options["json"])
        moving = Run(made, plan, options["jobs"], options["to_the_end"])
        moving.look = lambda: shown.look(overview(session, plan))
        # Where the output is JSON, it is nothing else.
        with shown, _stopped_by_ctrl_c(moving, command.stderr.write if options["json"] else console.print):
            moving.run()
        found = overview(session, plan)
    _tell(command, console, found, options)
    if moving.is_stopped and (left := found.stages["planned"] + len(found.under_way)):
        raise CommandError(
            f"Stopped while {left} of {len(found.moves)} moves had not ended. `manage.py rebalance apply` goes on.",
            returncode=INTERRUPTED,
        )


def _registered(session: Session, console: Console, options: dict[str, Any]) -> UUID:
    """Write down the moves of a plan, unless something is found that would stop one of them."""
    plan = plan_file.read(options["plan"])
    found = preflight.findings_of(plan)
    preflight.refuse(found)
    warnings = [each for each in found if each.severity is Severity.WARNING]
    if warnings and not options["json"]:
        show_findings(warnings, console)
        console.print()
    return register(session, plan)[0]


def _options(options: dict[str, Any]) -> Options:
    for name in ("jobs", "per_shard"):
        if options[name] < 1:
            raise CommandError(f"--{name.replace('_', '-')} is a number of 1 or more, not {options[name]}.")
    if not 1 <= options["together"] <= MOST_TOGETHER:
        raise CommandError(f"--together is a number of 1 to {MOST_TOGETHER}, not {options['together']}.")
    if not 0 < options["share"] <= 1:
        raise CommandError(f"--share is more than 0 and at most 1, not {options['share']:g}.")
    # A move whose window PostgreSQL cannot add to a time would have changed hands, and not end.
    if not 0 <= options["window"] <= LONGEST_WINDOW:
        raise CommandError(
            f"--window is a number of seconds from 0 to {LONGEST_WINDOW:,.0f}, not {options['window']:g}."
        )
    rows = options["rows_per_second"]
    if rows is not None and rows <= 0:
        raise CommandError(f"--rows-per-second is more than 0, not {rows:g}.")
    return Options(
        window=0.0 if options["end_windows"] else options["window"],
        share=options["share"],
        rows_per_second=rows,
        replica_lag=options["replica_lag"],
        per_shard=options["per_shard"],
        together=options["together"],
    )


class _Shown:
    """
    What is to be seen while movers work: a picture that changes in a terminal, else a line for each bucket.

    Of many buckets there is a line for each tenth of them, which a log has room for.
    """

    def __init__(self, console: Console, before: Overview, *, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._speeds = Speeds()
        self._told = {move.id for move in before.moves if move.announced is not None}
        self._live: Live | None = None

    def __enter__(self) -> None:
        if self._console.is_terminal and not self._quiet:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def look(self, found: Overview) -> None:
        if self._live is not None:
            self._live.update(moves_display.rendered(found, self._speeds.of(found)), refresh=True)
        elif not self._quiet:
            self._tell(
                [move for move in found.moves if move.announced is not None and move.id not in self._told], found
            )

    def _tell(self, switched: list[MoveStatus], found: Overview) -> None:
        if len(found.moves) <= moves_display.SHOWN:
            for move in switched:
                self._console.print(moves_display.switched_line(move))
        elif len(switched) >= len(found.moves) / TENTH:
            self._console.print(moves_display.progress_line(found))
        else:
            return
        self._told |= {move.id for move in switched}


@contextmanager
def _stopped_by_ctrl_c(moving: Run, say: Callable[[str], object]) -> Iterator[None]:
    """Let the first Ctrl-C stop movers where each may rest, and the second one stop them at once."""

    def stop(number: int, frame: Any) -> None:
        if moving.is_stopped:
            # As safe as any other end of a mover.
            os._exit(INTERRUPTED)
        moving.stop()
        say("Stopping as soon as each move may rest. Once more, to stop at once.")

    with ExitStack() as stack:
        # Other threads are told nothing: who calls the command in one stops it otherwise.
        if threading.current_thread() is threading.main_thread():
            for each in (signal.SIGINT, signal.SIGTERM):
                stack.callback(signal.signal, each, signal.signal(each, stop))
        yield


def _tell(command: BaseCommand, console: Console, found: Overview, options: dict[str, Any]) -> None:
    if options["json"]:
        command.stdout.write(json.dumps(found.as_json(), indent=2) + "\n")
    else:
        moves_display.show(found, console)
        if found.stages["window"]:
            console.print(
                "\nThe moves in their window can be taken back with `manage.py rebalance rollback`. Run `manage.py "
                "rebalance apply` again afterwards: it deletes the rows that are left on the former owners.",
                soft_wrap=True,
            )
    if found.failed:
        raise CommandError(f"{len(found.failed)} of {len(found.moves)} moves have failed.")

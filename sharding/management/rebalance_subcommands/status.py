"""`rebalance status`: show how far moves have come."""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.live import Live

from sharding import conf
from sharding.management.rebalance_control import add_json, add_selection, control, selected_plan
from sharding.rebalance import moves_display
from sharding.rebalance.overview import Overview, overview
from sharding.rebalance.sessions import Session

HELP = "Show how far moves have come, and what has failed."
#: Seconds between two looks of --watch.
EVERY = 1.0


def add_arguments(parser: ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--watch", type=float, nargs="?", const=EVERY, metavar="SECONDS", help="Go on until all moves are over."
    )
    add_json(parser)


def run(command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
    if options["watch"] is not None and not 0 < options["watch"] <= conf.MAX_TIMEOUT:
        raise CommandError(f"--watch must be a positive number of seconds, not {options['watch']}.")
    with control() as session:
        if options["watch"] is not None:
            _watch(command, console, session, options)
            return
        found = _overview(session, options)
        if options["json"]:
            command.stdout.write(json.dumps(found.as_json(), indent=2) + "\n")
        else:
            moves_display.show(found, console)


class Speeds:
    """How many rows a second go over, from one look to the next."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, int]] = {}

    def of(self, found: Overview) -> dict[int, float]:
        now = time.monotonic()
        speeds = {}
        for move in found.under_way:
            then, rows = self._before.get(move.id, (now, move.copied))
            if now > then:
                speeds[move.id] = (move.copied - rows) / (now - then)
        self._before = {move.id: (now, move.copied) for move in found.under_way}
        return speeds


def _watch(command: BaseCommand, console: Console, session: Session, options: dict[str, Any]) -> None:
    speeds = Speeds()
    found = _overview(session, options)
    try:
        if options["json"] or not console.is_terminal:
            while True:
                if options["json"]:
                    command.stdout.write(json.dumps(found.as_json()) + "\n")
                    # Who reads a pipe waits for it.
                    command.stdout.flush()
                else:
                    console.print(moves_display.rendered(found, speeds.of(found)), "")
                if found.is_over:
                    return
                time.sleep(options["watch"])
                found = _overview(session, options)
        with Live(console=console, auto_refresh=False) as live:
            while not found.is_over:
                live.update(moves_display.rendered(found, speeds.of(found)), refresh=True)
                time.sleep(options["watch"])
                found = _overview(session, options)
            live.update(moves_display.rendered(found), refresh=True)
    except KeyboardInterrupt:
        # Nothing is kept between two looks.
        return


def _overview(session: Session, options: dict[str, Any]) -> Overview:
    found = overview(session, selected_plan(session, options))
    if not options["bucket"]:
        return found
    return Overview(tuple(move for move in found.moves if move.bucket in options["bucket"]))

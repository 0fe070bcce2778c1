"""`rebalance pause`, `resume`, `abort` and `rollback`: say what is wanted of moves; whoever moves heeds it."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from dataclasses import dataclass
from typing import Any

from django.core.management.base import BaseCommand
from rich.console import Console

from sharding.management.rebalance_control import add_json, add_selection, control, selected_plan
from sharding.rebalance.phases import Wanted
from sharding.rebalance.registering import wish


@dataclass(frozen=True, slots=True)
class Steering:
    """One of the subcommands."""

    wanted: Wanted
    HELP: str
    #: What is said of moves of which it can be wanted, and of none.
    done: str
    none: str

    def add_arguments(self, parser: ArgumentParser) -> None:
        add_selection(parser)
        add_json(parser)

    def run(self, command: BaseCommand, console: Console, options: dict[str, Any]) -> None:
        with control() as session:
            buckets = wish(session, self.wanted, plan=selected_plan(session, options), buckets=options["bucket"])
        if options["json"]:
            command.stdout.write(json.dumps({"wanted": self.wanted.value, "buckets": buckets}, indent=2) + "\n")
            return
        if not buckets:
            console.print(self.none)
            return
        count = f"{len(buckets):,} {'move' if len(buckets) == 1 else 'moves'}"
        console.print(self.done.format(count=count))


_GO_ON = "Run `manage.py rebalance apply` if no mover is at work."

pause = Steering(
    Wanted.PAUSE,
    "Let moves rest where they are; a bucket that nobody can write is opened first.",
    f"{{count}} will pause. What has been copied is kept, and what is written meanwhile is noted. {_GO_ON}",
    "No move is there to pause: all are over, or to be given up or taken back.",
)
resume = Steering(
    Wanted.GO,
    "Let moves go on that were paused.",
    f"{{count}} will go on. {_GO_ON}",
    "No move is there to go on with: all are over.",
)
abort = Steering(
    Wanted.ABORT,
    "Give moves up whose bucket has not changed hands yet.",
    f"{{count}} will be given up; the buckets stay where they are. {_GO_ON}",
    "No move is there to give up: all are over, or their buckets have changed hands. `manage.py rebalance rollback` "
    "takes those back whose window is open.",
)
rollback = Steering(
    Wanted.ROLLBACK,
    "Take moves back whose window is open, and give up those whose bucket has not changed hands.",
    f"{{count}} will be taken back, with what was written since. {_GO_ON}",
    "No move can be taken back: none is in its window. To bring buckets back, make a plan.",
)

"""
A mover in a process of its own: ``python -m scripts.benchmarks.moves.process``.

Each line of its input names a plan and options, as JSON; the moves are carried on until each is in its window or over.
It says when each step was done: a line of JSON for each, and ``{"rests": true}`` when nothing is left to do.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any
from uuid import UUID

import django

#: Seconds between two looks at what is due.
PAUSE = 0.02


def main() -> None:
    django.setup()
    _say(ready=True)
    for line in sys.stdin:
        job = json.loads(line)
        _carry(UUID(job["plan"]), job["options"])
        _say(rests=True)


def _carry(plan: UUID, given: dict[str, Any]) -> None:
    from sharding.models import Move
    from sharding.rebalance.mover import Mover
    from sharding.rebalance.options import Options

    left = Move.objects.using("default").filter(plan=plan).exclude(phase__in=["done", "aborted"])
    if given.get("window", 0.0):
        left = left.exclude(phase="window", wanted="go")
    mover = Mover(Options(**given), plan, lambda move, step: _say(step=type(step).__name__, bucket=move.bucket))
    while left.exists():
        mover.run()
        time.sleep(PAUSE)


def _say(**facts: Any) -> None:
    print(json.dumps({"at": time.time(), **facts}), flush=True)


if __name__ == "__main__":
    main()

"""
Begin the moves of plan.json, and be killed as soon as one has come to a phase.

    python -m tests.how_to.lost_mover PHASE
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import django

django.setup()

from django.db import DEFAULT_DB_ALIAS  # noqa: E402

from sharding.rebalance import plan_file  # noqa: E402
from sharding.rebalance.mover import Mover  # noqa: E402
from sharding.rebalance.options import Options  # noqa: E402
from sharding.rebalance.registering import register  # noqa: E402
from sharding.rebalance.sessions import open_session  # noqa: E402
from sharding.rebalance.steps import Step  # noqa: E402
from sharding.rebalance.stored_moves import StoredMove  # noqa: E402

#: Seconds in which a move should come to its phase.
PATIENCE = 60.0


def main(phase: str) -> None:
    """Move until then, and end as SIGKILL ends a process."""

    def heard(move: StoredMove, step: Step) -> None:
        if step.leads_to == phase:
            os._exit(0)

    with open_session(DEFAULT_DB_ALIAS) as control:
        _, number = register(control, plan_file.read(Path("plan.json")))
    assert number, "There is nothing to move."
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        Mover(Options(share=1.0, latency=None), heard=heard).run()
        time.sleep(0.2)
    raise SystemExit(f"No move came to {phase!r} within {PATIENCE:g} seconds.")


if __name__ == "__main__":
    main(sys.argv[1])

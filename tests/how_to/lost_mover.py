"""
A mover that is killed as soon as a move has come to a phase.

    python -m tests.how_to.lost_mover PHASE
"""

from __future__ import annotations

import os
import sys
import time

import django

django.setup()

from sharding.rebalance.mover import Mover  # noqa: E402
from sharding.rebalance.options import Options  # noqa: E402
from sharding.rebalance.steps import Step  # noqa: E402
from sharding.rebalance.stored_moves import StoredMove  # noqa: E402


def main(phase: str) -> None:
    """Move until then, and end as SIGKILL ends a process."""

    def heard(move: StoredMove, step: Step) -> None:
        if step.leads_to == phase:
            os._exit(0)

    while True:
        Mover(Options(share=1.0, latency=None), heard=heard).run()
        time.sleep(0.2)


if __name__ == "__main__":
    main(sys.argv[1])

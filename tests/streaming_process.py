"""
A process that reads all rows in order and says what memory that took, for tests/test_stream_memory.py.

``python -m tests.streaming_process cursors|batches|list instances|values`` prints {"rows": …, "megabytes": …}: how
many came in the right order, and the highest resident memory while they came, beyond that of the process when idle.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import django

KILOBYTES = 1024


def highest() -> float:
    """Return the highest resident memory of this process since it was last forgotten, in megabytes."""
    status = Path("/proc/self/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / KILOBYTES


def forget_highest() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def main(how: str, what: str) -> dict[str, float]:
    from django.db import connections

    from aggregator import fan_out
    from aggregator.batches import DISABLED
    from sharding.testing import cluster
    from tests.shop.models import Ledger

    connections["default"].settings_dict[DISABLED] = how == "batches"
    with cluster.owners("default", "shard_a", "shard_b", "shard_c"):
        rows = fan_out(Ledger.objects).order_by("number", "tenant_id")
        asked = rows.values_list("number", "tenant_id") if what == "values" else rows
        # What is imported and connected by the first rows belongs to an idle process.
        list(asked[:3])
        forget_highest()
        idle = highest()
        number, before = 0, (0, -1)
        for row in list(asked) if how == "list" else asked.iterator():
            key = row if what == "values" else (row.number, row.tenant_id)
            number += key > before
            before = key
    return {"rows": number, "megabytes": highest() - idle}


if __name__ == "__main__":
    django.setup()
    print(json.dumps(main(*sys.argv[1:])))

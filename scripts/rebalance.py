"""
Run `manage.py rebalance` from a checkout, of the project that DJANGO_SETTINGS_MODULE names.

    python scripts/rebalance.py plan                       show what would move; nothing is changed
    python scripts/rebalance.py plan --add shard_e         to a new shard
    python scripts/rebalance.py plan --drain shard_b       away from an old one
    python scripts/rebalance.py apply --plan plan.json     move the buckets of a plan that --output has written
    python scripts/rebalance.py status --watch             look on

The settings are looked for in the current folder. An installed package has the same as `shardkit rebalance`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

# Run as a file, this module has its own folder on the path and not the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sharding import console


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line ``arguments`` and return the exit code."""
    return console.main(["rebalance", *(sys.argv[1:] if arguments is None else arguments)])


if __name__ == "__main__":
    sys.exit(main())

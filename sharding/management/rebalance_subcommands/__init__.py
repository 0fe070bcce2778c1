"""
Subcommands of `manage.py rebalance`: each has HELP, add_arguments(parser), and run(command, console, options).
"""

from __future__ import annotations

from typing import Any

from sharding.management.rebalance_subcommands import apply, cleanup, plan, status, steering, verify

#: By name, in the order of the help: that in which they are used.
SUBCOMMANDS: dict[str, Any] = {
    "plan": plan,
    "apply": apply,
    "status": status,
    "pause": steering.pause,
    "resume": steering.resume,
    "abort": steering.abort,
    "rollback": steering.rollback,
    "verify": verify,
    "cleanup": cleanup,
}

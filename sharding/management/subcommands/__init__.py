"""
Subcommands of `manage.py shards` with a module each: HELP, add_arguments(parser), and run(command, console, options).
"""

from __future__ import annotations

from types import ModuleType

from sharding.management.subcommands import certify, deadlocks, lookup, recover

#: By name, in the order of the help.
SUBCOMMANDS: dict[str, ModuleType] = {
    "lookup": lookup,
    "recover": recover,
    "deadlocks": deadlocks,
    "certify": certify,
}

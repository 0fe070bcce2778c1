"""
Subcommands of `manage.py rebalance`, modules with HELP, add_arguments(parser), and run(command, console, options).
"""

from __future__ import annotations

from types import ModuleType

from sharding.management.rebalance_subcommands import plan

#: By name, in the order of the help: that in which they are used.
SUBCOMMANDS: dict[str, ModuleType] = {"plan": plan}

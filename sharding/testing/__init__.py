"""
Tools for the tests of projects that use sharding: see ``statements`` and ``cluster``.
"""

from __future__ import annotations

from typing import Any

__all__ = ["ShardedTestCaseMixin", "assert_no_fan_out", "assert_statements", "owners"]

_HOMES = {"owners": "sharding.testing.cluster"}


def __getattr__(name: str) -> Any:
    # The database backend imports this package while Django is being set up.
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "sharding.testing.statements")), name)

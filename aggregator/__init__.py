"""
Ask several shards, and answer as one database would.

    fan_out(queryset)       every shard is asked, and the answer merged
    explain(queryset)       which shards, which tier, and why, without asking
    on_each_shard(function) something else on every shard
    KeysetPaginator         pages by stable cursors
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aggregator.each_shard import on_each_shard
    from aggregator.explanation import explain
    from aggregator.opt_in import fan_out
    from aggregator.pagination import KeysetPage, KeysetPaginator

__all__ = ["KeysetPage", "KeysetPaginator", "explain", "fan_out", "on_each_shard"]

_HOMES = {
    "KeysetPage": "aggregator.pagination",
    "KeysetPaginator": "aggregator.pagination",
    "explain": "aggregator.explanation",
    "fan_out": "aggregator.opt_in",
    "on_each_shard": "aggregator.each_shard",
}


def __getattr__(name: str) -> Any:
    # INSTALLED_APPS imports this package before Django's models can be imported.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

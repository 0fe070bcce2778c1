"""
Ask several shards, and answer as one database would.

    fan_out(queryset)       every shard is asked, and the answer merged
    attach(queryset, path)  the rows come with the objects that their foreign keys refer to, in any database
    join(left, right, on=…) pairs of rows of two querysets, of any databases
    explain(queryset)       which shards, which tier, and why, without asking
    raw(sql, params)        the rows of raw SQL, each with its shard
    on_each_shard(function) something else on every shard
    KeysetPaginator         pages by stable cursors
    PartialPaginator        pages by number that say which shards they lack
    DeepOffsetWarning       what late pages by number are warned of
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aggregator.attaching import attach
    from aggregator.deep_offsets import DeepOffsetWarning
    from aggregator.each_shard import on_each_shard
    from aggregator.explanation import explain
    from aggregator.joining import join
    from aggregator.opt_in import fan_out
    from aggregator.pagination import KeysetPage, KeysetPaginator
    from aggregator.partial_results import PartialAggregate, PartialCount, PartialPaginator
    from aggregator.raw_rows import RawRow, raw

__all__ = [
    "DeepOffsetWarning",
    "KeysetPage",
    "KeysetPaginator",
    "PartialAggregate",
    "PartialCount",
    "PartialPaginator",
    "RawRow",
    "attach",
    "explain",
    "fan_out",
    "join",
    "on_each_shard",
    "raw",
]

_HOMES = {
    "DeepOffsetWarning": "aggregator.deep_offsets",
    "KeysetPage": "aggregator.pagination",
    "KeysetPaginator": "aggregator.pagination",
    "PartialAggregate": "aggregator.partial_results",
    "PartialCount": "aggregator.partial_results",
    "PartialPaginator": "aggregator.partial_results",
    "RawRow": "aggregator.raw_rows",
    "attach": "aggregator.attaching",
    "explain": "aggregator.explanation",
    "fan_out": "aggregator.opt_in",
    "join": "aggregator.joining",
    "on_each_shard": "aggregator.each_shard",
    "raw": "aggregator.raw_rows",
}


def __getattr__(name: str) -> Any:
    # INSTALLED_APPS imports this package before Django's models can be imported.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

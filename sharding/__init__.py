"""
Hash-based sharding for Django: `default` is the door to a cluster of databases.

Models are imported from ``sharding.models`` and fields from ``sharding.fields``, once Django's apps are ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharding.blocks import atomic, compensate
    from sharding.conflicts import retryable
    from sharding.locking import lock_in_order
    from sharding.operations.explanation import explain
    from sharding.placing import bucket_of, shard_of
    from sharding.retrying import retry
    from sharding.scopes import scope

__all__ = ["atomic", "bucket_of", "compensate", "explain", "lock_in_order", "retry", "retryable", "scope", "shard_of"]

_HOMES = {
    "atomic": "sharding.blocks",
    "bucket_of": "sharding.placing",
    "compensate": "sharding.blocks",
    "explain": "sharding.operations.explanation",
    "lock_in_order": "sharding.locking",
    "retry": "sharding.retrying",
    "retryable": "sharding.conflicts",
    "scope": "sharding.scopes",
    "shard_of": "sharding.placing",
}


def __getattr__(name: str) -> Any:
    # Settings import sharding.env before Django is configured, so nothing of Django is imported until it is used.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

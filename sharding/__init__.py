"""
Hash-based sharding for Django: `default` is the door to a cluster of databases.

Models are imported from ``sharding.models`` and fields from ``sharding.fields``, once Django's apps are ready.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sharding.placing import bucket_of, shard_of
    from sharding.scopes import scope

__all__ = ["bucket_of", "scope", "shard_of"]

_HOMES = {"bucket_of": "sharding.placing", "shard_of": "sharding.placing", "scope": "sharding.scopes"}


def __getattr__(name: str) -> Any:
    # Settings import sharding.env before Django is configured, so nothing of Django is imported until it is used.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)

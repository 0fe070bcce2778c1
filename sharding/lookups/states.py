"""
Which lookups may answer: only one that is built has an entry for every row.

The control database says so. This process remembers it for MAP_TTL, as it does the bucket map; a lookup that is not
built yet is asked about at each use, since that use fails or asks every shard.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, connections

from sharding import conf

#: {name of a built lookup: until when this process believes it}
_built: dict[str, float] = {}


def is_built(name: str) -> bool:
    """Return whether a lookup has an entry for every row, as the control database said at most MAP_TTL ago."""
    if time.monotonic() < _built.get(name, 0.0):
        return True
    found = _read(name)
    if found:
        _built[name] = time.monotonic() + conf.current().map_ttl
    else:
        _built.pop(name, None)
    return found


def mark_built(names: Iterable[str]) -> None:
    """Let lookups answer from now on."""
    from sharding.control import LookupState

    for name in names:
        LookupState.objects.using(DEFAULT_DB_ALIAS).update_or_create(name=name, defaults={"built": True})


def mark_empty(connection: Any, name: str) -> None:
    """Let a lookup no longer answer, since its table is new or gone. In the transaction of the schema's change."""
    from sharding.control import LookupState

    _built.pop(name, None)
    if has_table(connection):
        LookupState.objects.using(connection.alias).filter(name=name).delete()


def has_table(connection: Any) -> bool:
    from sharding.control import LookupState

    # A failing SELECT would break the caller's transaction.
    return LookupState._meta.db_table in connection.introspection.table_names()


def forget() -> None:
    """Drop what this process remembers."""
    _built.clear()


def _read(name: str) -> bool:
    # The backends import this module, and Django loads them before any model may be imported.
    from sharding.control import LookupState

    if not has_table(connections[DEFAULT_DB_ALIAS]):
        return False
    return LookupState.objects.using(DEFAULT_DB_ALIAS).filter(name=name, built=True).exists()


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"SHARDING", "DATABASES"}:
        forget()


setting_changed.connect(_on_setting_changed)

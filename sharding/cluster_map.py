"""
The bucket map of this process: read from the control database once, and again when it is older than MAP_TTL.

A map never changes inside an atomic block, and a control database that is down leaves the known map in use.
"""

from __future__ import annotations

import json
import logging
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections
from django.utils.connection import ConnectionDoesNotExist

from sharding import map_reading
from sharding.bucket_map import BucketMap
from sharding.bucket_states import shown_by
from sharding.errors import UnknownShard
from sharding.map_reading import Loaded

logger = logging.getLogger("sharding")

#: Seconds until a control database that did not answer is asked again.
RETRY = 5.0


_loaded: Loaded | None = None
#: What was made of a map, which takes a moment.
_shown: tuple[BucketMap, str] | None = None
_lock = threading.Lock()


def current() -> BucketMap:
    """
    Return the bucket map, from memory unless it is older than MAP_TTL.

    Raises:
        MapMissing: shards are declared, and `shards init` was never run.
        MapConflict: the cluster was initialised with another BUCKETS or HASH.
    """
    loaded = _loaded
    if loaded is None:
        return refresh()
    if time.monotonic() >= loaded.until and not connections[DEFAULT_DB_ALIAS].in_atomic_block:
        renew()
        return (_loaded or loaded).map
    return loaded.map


def renew() -> None:
    """Read the map again if it is older than MAP_TTL, before an atomic block inside which it will not change."""
    loaded = _loaded
    if loaded is not None and time.monotonic() >= loaded.until:
        _refresh_if_possible(loaded)


def known() -> BucketMap | None:
    """Return the map in memory without asking the database; None before the first use."""
    return _loaded.map if _loaded is not None else None


def refresh() -> BucketMap:
    """Read the map from the control database now, and return it."""
    global _loaded
    with _lock:
        _loaded = _load()
        return _loaded.map


def learn(bucket: int, alias: str, epoch: int) -> None:
    """Take note of where a bucket has gone, as the shard says which had it; the whole map is read again soon."""
    global _loaded
    with _lock:
        if _loaded is not None:
            _loaded = replace(_loaded, map=_loaded.map.corrected(bucket, alias, epoch), until=0.0, whole=False)


def expire() -> None:
    """Let the map be read again at the next use outside of an atomic block."""
    global _loaded
    with _lock:
        if _loaded is not None:
            _loaded = replace(_loaded, until=0.0)


def is_old() -> bool:
    """Return whether the map in memory is older than MAP_TTL, as it may become inside an atomic block."""
    return _loaded is not None and time.monotonic() >= _loaded.until


def reading() -> Loaded | None:
    """Return what is in memory; None before the first use."""
    return _loaded


def quiet() -> Loaded | None:
    """Return the reading in memory if no bucket was on its way by it, and it is not older than MAP_TTL."""
    loaded = _loaded
    return loaded if loaded is not None and loaded.is_quiet and time.monotonic() < loaded.until else None


def shown(buckets: BucketMap | None = None) -> str:
    """Return what each shard shows by a map, that in memory by default, as JSON: the sums of marks by alias."""
    global _shown
    buckets = buckets or current()
    kept = _shown
    if kept is None or kept[0] is not buckets:
        sums = {alias: shown_by(buckets.buckets_of(alias)) for alias in buckets.aliases}
        _shown = kept = (buckets, json.dumps(sums))
    return kept[1]


def forget() -> None:
    """Drop the map in memory; the next use reads it again."""
    global _loaded
    _loaded = None


def shard_number(alias: str) -> int:
    """
    Return the number of a shard inside the ids it mints (0 for a cluster of one that was never initialised).

    Raises:
        UnknownShard: the alias was not there when the cluster was last initialised.
    """
    current()
    numbers = _loaded.numbers if _loaded is not None else {}
    if alias not in numbers:
        refresh()
        numbers = _loaded.numbers if _loaded is not None else {}
    try:
        return numbers[alias]
    except KeyError:
        raise UnknownShard(
            f"The shard {alias!r} has no number in the control database, so it cannot make ids. "
            f"Run `manage.py shards init` to make it known.",
            alias=alias,
        ) from None


def uuid() -> UUID | None:
    """Return the cluster's own id, which never changes; None for a cluster of one that was never initialised."""
    # However old the map is: this is asked at the end of atomic blocks, whose transactions are not ours to read it in.
    if _loaded is None:
        refresh()
    return _loaded.uuid if _loaded is not None else None


def copies() -> Mapping[str, frozenset[str]]:
    """Return the shards that hold each reference table, as they were when the map was read."""
    current()
    return {} if _loaded is None else _loaded.copies


def known_copies() -> Mapping[str, frozenset[str]] | None:
    """Return the same without asking the database; None before the first use."""
    return _loaded.copies if _loaded is not None else None


def connection_of(alias: str) -> Any:
    """Return this thread's connection to a shard, or raise UnknownShard when DATABASES lacks the alias."""
    try:
        return connections[alias]
    except ConnectionDoesNotExist:
        raise UnknownShard(
            f"The bucket map names the shard {alias!r}, which is not in DATABASES. "
            f"Declare it again (for example by SHARD_URL_{alias.removeprefix('shard_').upper()}); its rows are there.",
            alias=alias,
        ) from None


def _refresh_if_possible(loaded: Loaded) -> None:
    global _loaded
    # One thread asks; the others go on with the map they have.
    if not _lock.acquire(blocking=False):
        return
    try:
        _loaded = _load()
    except DatabaseError as error:
        logger.warning(
            "The bucket map could not be refreshed from the control database (%s); epoch %d stays in use.",
            type(error).__name__,
            loaded.map.epoch,
        )
        _loaded = replace(loaded, until=time.monotonic() + RETRY, is_quiet=False)
    finally:
        _lock.release()


def stored_copies() -> dict[str, frozenset[str]]:
    """Ask the control database which shards hold each reference table; nothing is asked in a project without any."""
    return map_reading.stored_copies(_loaded)


def _load() -> Loaded:
    return map_reading.read(_loaded)


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"SHARDING", "DATABASES"}:
        forget()


def _renew_lock() -> None:
    # Another thread of the parent may have held it.
    global _lock
    _lock = threading.Lock()


setting_changed.connect(_on_setting_changed)
os.register_at_fork(after_in_child=_renew_lock)

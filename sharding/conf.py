"""
The one reader of ``settings.SHARDING``: typed values, the defaults, and what is wrong with the values given.

``current()`` is what the rest of the toolkit asks, ``problems()`` what the system checks ask. Neither opens a database.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS
from django.dispatch import receiver

from sharding.hashing import MAX_BUCKETS
from sharding.setting_rules import FENCES, MAX_TIMEOUT, RULES

__all__ = [
    "MAX_TIMEOUT",
    "REPLICA_INFIX",
    "RULES",
    "SHARD_PREFIX",
    "Problem",
    "Settings",
    "current",
    "problems",
    "read",
]

SHARD_PREFIX: Final = "shard_"
REPLICA_INFIX: Final = "_replica_"


@dataclass(frozen=True, slots=True)
class Settings:
    """
    The values of ``settings.SHARDING``; each attribute is the key of the same name in capitals.

    ``default`` may own buckets without being among ``shards``.
    """

    shards: tuple[str, ...] = ()  # Left out: the aliases of DATABASES that start with shard_, but no replicas, sorted.
    buckets: int = MAX_BUCKETS
    hash: str = "mmh3"
    placement: str = "even"
    weights: Mapping[str, float] = field(default_factory=dict)  # alias -> weight; 1 for the others
    pins: Mapping[int, str] = field(default_factory=dict)  # bucket -> alias
    map_ttl: float = 30.0  # seconds
    mode: str = "enforce"
    scope_from_request: str | None = None  # dotted path of a function: request -> shard key or None
    max_parallel: int = 32  # shards that one fan-out asks at the same time
    fan_out_timeout: float | None = None  # seconds that one fan-out may take
    without_two_phase_commit: str = "raise"  # what a block over several databases does where one cannot prepare
    recover_after: float = 10.0  # seconds after which an undecided transaction over several databases is given up
    recover_in_process: bool = True  # whether processes of the application finish what crashed ones have left
    lock_timeout: float | None = 10.0  # seconds that a block over several databases waits for one lock
    move_wait: float = 10.0  # seconds for which a statement is sent again while its bucket is between two shards
    gather_rows: int = 100_000  # rows of all shards together that one query may bring to one place
    gather_bytes: int = 67_108_864  # and their bytes, as text
    warn_offset: int | None = 10_000  # rows that a query of several shards may skip without a warning
    max_offset: int | None = 100_000  # and without an error
    # label of a model, in lower case, or "default" -> whether its triggers ask for each row or each statement
    fence: Mapping[str, str] | None = field(default_factory=lambda: {"default": FENCES[0]})


class Problem(NamedTuple):
    """Something wrong with one setting: a key of ``SHARDING``, or ``"SHARDING"`` for the whole."""

    setting: str
    message: str
    hint: str


@cache
def current() -> Settings:
    """
    Return the settings of this process.

    Raises:
        ImproperlyConfigured: A value is wrong; the message is that of the first problem.
    """
    found, wrong = read(getattr(settings, "SHARDING", {}), settings.DATABASES)
    if wrong:
        raise ImproperlyConfigured(f"{wrong[0].message} {wrong[0].hint}")
    return found


def problems() -> list[Problem]:
    """Return everything that is wrong with ``settings.SHARDING`` by itself, in the order of the settings."""
    return read(getattr(settings, "SHARDING", {}), settings.DATABASES)[1]


def read(given: Any, aliases: Iterable[str]) -> tuple[Settings, list[Problem]]:
    """
    Return the settings that ``given``, as SHARDING, means beside these ``DATABASES`` aliases; and its problems.

    A setting with a problem has its default in the result.
    """
    if not isinstance(given, Mapping):
        return Settings(), [Problem("SHARDING", f"SHARDING must be a dict, not {given!r}.", "Write SHARDING = {}.")]
    found = [_unknown(key) for key in given if key not in RULES]
    values: dict[str, Any] = {"shards": tuple(sorted(filter(_is_shard, aliases)))}
    for name, rule in RULES.items():
        if name not in given:
            continue
        if rule.accepts(given[name]):
            values[name.lower()] = rule.kept(given[name])
        else:
            message = f"SHARDING[{name!r}] must be {rule.expected}, not {given[name]!r}."
            found.append(Problem(name, message, rule.hint))
    result = Settings(**values)
    return result, [*found, *_disagreements(result)]


def _is_shard(alias: str) -> bool:
    return alias.startswith(SHARD_PREFIX) and REPLICA_INFIX not in alias


def _unknown(key: Any) -> Problem:
    return Problem("SHARDING", f"SHARDING has the unknown key {key!r}.", f"The keys are {', '.join(RULES)}.")


def _disagreements(found: Settings) -> Iterable[Problem]:
    owners = {*found.shards, DEFAULT_DB_ALIAS}
    declared = f"The shards are {', '.join(found.shards) or 'none'}; default may own buckets too."
    for alias in found.weights:
        if alias not in owners:
            yield Problem("WEIGHTS", f"SHARDING['WEIGHTS'] names {alias!r}, which is not a shard.", declared)
    if found.placement == "modulo" and len({found.weights.get(alias, 1) for alias in found.shards}) > 1:
        hint = "Give all shards the same weight, or set PLACEMENT to 'even' or 'consistent'."
        yield Problem("WEIGHTS", "SHARDING['WEIGHTS'] differ, and the placement 'modulo' cannot weight shards.", hint)
    for bucket, alias in found.pins.items():
        if not 0 <= bucket < found.buckets:
            hint = f"The buckets are 0 to {found.buckets - 1}."
            yield Problem("PINS", f"SHARDING['PINS'] names the bucket {bucket}, which does not exist.", hint)
        if alias not in owners:
            message = f"SHARDING['PINS'] pins the bucket {bucket} to {alias!r}, which is not a shard."
            yield Problem("PINS", message, declared)


@receiver(setting_changed, dispatch_uid="sharding.conf")
def _forget(*, setting: str, **kwargs: Any) -> None:
    if setting in ("SHARDING", "DATABASES"):
        current.cache_clear()

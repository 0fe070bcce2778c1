"""
The one reader of ``settings.SHARDING``: typed values, the defaults, and what is wrong with the values given.

``current()`` is what the rest of the toolkit asks, ``problems()`` what the system checks ask. Neither opens a database.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, NamedTuple

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS
from django.dispatch import receiver

from sharding.hashing import MAX_BUCKETS, METHODS
from sharding.placement import PLACEMENTS

SHARD_PREFIX: Final = "shard_"
REPLICA_INFIX: Final = "_replica_"
MODES: Final = ("enforce", "observe")
WITHOUT_TWO_PHASE_COMMIT: Final = ("raise", "sequential")
FENCES: Final = ("row", "statement")
#: PostgreSQL's largest lock_timeout and statement_timeout, in whole seconds.
MAX_TIMEOUT: Final = 2147483


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
    fence: Mapping[str, str] | None = None


class Problem(NamedTuple):
    """Something wrong with one setting: a key of ``SHARDING``, or ``"SHARDING"`` for the whole."""

    setting: str
    message: str
    hint: str


class Rule(NamedTuple):
    """What one setting must be: in words, as a predicate, and how the value is then kept."""

    expected: str
    accepts: Callable[[Any], bool]
    hint: str
    kept: Callable[[Any], Any] = lambda value: value


def _is_positive(value: Any) -> bool:
    return type(value) in (int, float) and 0 < value <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return type(value) is int and value > 0


def _is_offset(value: Any) -> bool:
    return value is None or (type(value) is int and value >= 0)


def _is_timeout(value: Any) -> bool:
    # PostgreSQL counts in milliseconds, of which 0 means no limit.
    return value is None or (_is_positive(value) and 0.001 <= value <= MAX_TIMEOUT)


def _seconds(value: Any) -> float | None:
    return None if value is None else float(value)


def _are_aliases(value: Any) -> bool:
    names = isinstance(value, list | tuple) and all(type(alias) is str and alias for alias in value)
    return names and len(set(value)) == len(value)


def _are_weights(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(key) is str and _is_positive(value[key]) for key in value)


def _are_pins(value: Any) -> bool:
    return isinstance(value, Mapping) and all(type(key) is int and type(value[key]) is str for key in value)


def _are_fences(value: Any) -> bool:
    return value is None or _are_forms(value)


def _are_forms(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(type(key) is str and type(value[key]) is str and value[key] in FENCES for key in value)
    return type(value) is str and value in FENCES


def _fences(value: Any) -> dict[str, str] | None:
    if value is None:
        return None
    given = {"default": value} if type(value) is str else value
    return {"default": FENCES[0]} | {label.lower(): form for label, form in given.items()}


def _is_dotted_path(value: Any) -> bool:
    if type(value) is not str:
        return value is None
    return "." in value and all(part.isidentifier() for part in value.split("."))


def _one_of(choices: Iterable[str]) -> str:
    return "one of " + ", ".join(repr(choice) for choice in choices)


RULES: Final[dict[str, Rule]] = {
    "SHARDS": Rule(
        "a list of different DATABASES aliases",
        _are_aliases,
        "Name each shard once, or leave SHARDS out to take every alias that starts with 'shard_'.",
        tuple,
    ),
    "BUCKETS": Rule(
        f"an integer from 1 to {MAX_BUCKETS}",
        lambda value: type(value) is int and 1 <= value <= MAX_BUCKETS,
        f"Leave it out for {MAX_BUCKETS}. It can never change once the cluster is initialised.",
    ),
    "HASH": Rule(
        _one_of(METHODS),
        lambda value: type(value) is str and value in METHODS,
        "Leave it out for 'mmh3'; 'identity' is for rows that already live at key % n.",
    ),
    "PLACEMENT": Rule(
        _one_of(PLACEMENTS),
        lambda value: type(value) is str and value in PLACEMENTS,
        "Leave it out for 'even', which moves the fewest buckets.",
    ),
    "WEIGHTS": Rule(
        "a dict of positive numbers by alias",
        _are_weights,
        "A shard that is left out has weight 1. To empty a shard, remove it from SHARDS.",
        dict,
    ),
    "PINS": Rule(
        "a dict of aliases by bucket number",
        _are_pins,
        "Write {bucket: alias}, for example {17: 'shard_a'}.",
        dict,
    ),
    "MAP_TTL": Rule(
        "a positive number of seconds",
        _is_positive,
        "Leave it out for 30. It bounds how long a process may read a moved bucket's old copy.",
        float,
    ),
    "MODE": Rule(
        _one_of(MODES),
        lambda value: type(value) is str and value in MODES,
        "Leave it out for 'enforce'.",
    ),
    "SCOPE_FROM_REQUEST": Rule(
        "the dotted path of a function, or None",
        _is_dotted_path,
        "Write a string such as 'shop.tenants.tenant_of', naming a function that takes the request.",
    ),
    "MAX_PARALLEL": Rule(
        "a positive integer",
        _is_count,
        "Leave it out for 32. With 1, shards are asked one after the other.",
    ),
    "FAN_OUT_TIMEOUT": Rule(
        f"a number of seconds from 0.001 to {MAX_TIMEOUT}, or None",
        _is_timeout,
        "Leave it out for None, with which a fan-out takes as long as its slowest shard.",
        _seconds,
    ),
    "WITHOUT_TWO_PHASE_COMMIT": Rule(
        _one_of(WITHOUT_TWO_PHASE_COMMIT),
        lambda value: type(value) is str and value in WITHOUT_TWO_PHASE_COMMIT,
        "Leave it out for 'raise'; 'sequential' commits one database after the other.",
    ),
    "RECOVER_AFTER": Rule(
        "a positive number of seconds",
        _is_positive,
        "Leave it out for 10. A commit that takes longer than this may be rolled back by another process.",
        float,
    ),
    "RECOVER_IN_PROCESS": Rule(
        "True or False",
        lambda value: type(value) is bool,
        "Leave it out for True. With False, `manage.py shards recover --watch` must run somewhere.",
    ),
    "LOCK_TIMEOUT": Rule(
        f"a number of seconds from 0.001 to {MAX_TIMEOUT}, or None",
        _is_timeout,
        "Leave it out for 10. With None, blocks over several databases wait as long as each server lets them.",
        _seconds,
    ),
    "MOVE_WAIT": Rule(
        "a positive number of seconds",
        _is_positive,
        "Leave it out for 10. So long is a statement sent again whose bucket is just about to be another shard's.",
        float,
    ),
    "GATHER_ROWS": Rule(
        "a positive integer",
        _is_count,
        "Leave it out for 100000 rows, which one query may bring from all shards to one place.",
    ),
    "GATHER_BYTES": Rule(
        "a positive integer",
        _is_count,
        "Leave it out for 67108864 bytes, which one query may bring from all shards to one place.",
    ),
    "WARN_OFFSET": Rule(
        "a number of rows, or None",
        _is_offset,
        "Leave it out for 10000. With None, nothing is said of the rows that a query of several shards skips.",
    ),
    "MAX_OFFSET": Rule(
        "a number of rows, or None",
        _is_offset,
        "Leave it out for 100000. With None, a query of several shards may skip any number of rows.",
    ),
    "FENCE": Rule(
        f"{_one_of(FENCES)}, a dict of them by the label of a model, or None",
        _are_fences,
        "Leave it out for None; write {'shop.Event': 'statement'} for a table whose rows are written many at a time.",
        _fences,
    ),
}


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

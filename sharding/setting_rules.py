"""
What each key of ``settings.SHARDING`` must be by itself, in words and as a predicate.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from sharding.hashing import MAX_BUCKETS, METHODS
from sharding.placement import PLACEMENTS

MODES: Final = ("enforce", "observe")
WITHOUT_TWO_PHASE_COMMIT: Final = ("raise", "sequential")
FENCES: Final = ("row", "statement")
#: PostgreSQL's largest lock_timeout and statement_timeout, in whole seconds.
MAX_TIMEOUT: Final = 2147483


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
        "Leave it out for 'row'; write {'shop.Event': 'statement'} for a table whose rows are written many at a time.",
        _fences,
    ),
}

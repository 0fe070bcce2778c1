"""
Plans as JSON files, so that what is applied is what was looked at.

A file is written and read by this program; it may be looked at, and moves may be struck from it. What cannot be a plan
is refused with a sentence that names the place.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, NoReturn

from sharding.bucket_map import Imbalance
from sharding.hashing import check_buckets
from sharding.rebalance.load import BY, is_count, is_number
from sharding.rebalance.plan import Balance, Plan, PlannedMove, Share

FORMAT: Final = "sharding rebalance plan"
VERSION: Final = 1
REMEDY: Final = "Write it again with `manage.py rebalance plan`."

#: Says what is wrong with a value, as the end of a sentence; None if nothing is.
Check = Callable[[Any], str | None]


class NoPlan(ValueError):
    """A file that holds no plan, or not one that this release reads."""


def write(plan: Plan, path: Path) -> None:
    """Write a plan to a file."""
    path.write_text(to_json(plan), encoding="utf-8")


def read(path: Path) -> Plan:
    """
    Return the plan in a file.

    Raises:
        NoPlan: the file cannot be read, or holds none.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise NoPlan(f"The plan file {str(path)!r} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise NoPlan(f"The plan file {str(path)!r} is no text in UTF-8. {REMEDY}") from error
    try:
        return from_json(text)
    except NoPlan as error:
        raise NoPlan(f"The plan file {str(path)!r} holds no plan: {error}") from error


def to_json(plan: Plan) -> str:
    """Return the text of a plan's file."""
    content = {"format": FORMAT, "version": VERSION, **asdict(plan), "pins": [list(pin) for pin in plan.pins]}
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Plan:
    """
    Return the plan in the text of a file.

    Raises:
        NoPlan: there is none.
    """
    try:
        content = json.loads(text, object_pairs_hook=_object, parse_constant=_constant)
    except NoPlan:
        raise
    except ValueError as error:
        # Among them json.JSONDecodeError, and Python's limit on the digits of a number.
        raise NoPlan(f"it is not JSON ({error}). {REMEDY}") from error
    except RecursionError as error:
        raise NoPlan(f"it is not JSON that a plan is written in. {REMEDY}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise NoPlan(f"it does not say that its format is {FORMAT!r}. {REMEDY}")
    if not is_count(content.get("version")) or content["version"] != VERSION:
        raise NoPlan(f"its version is {content.get('version')!r}, and this release reads {VERSION}. {REMEDY}")
    return _plan(_fields(content, "", PLAN))


def _plan(found: dict[str, Any]) -> Plan:
    moves = [PlannedMove(**each) for each in _each(found["moves"], "moves", MOVE)]
    pins = [_pin(pin, f"pins[{index}]") for index, pin in enumerate(found["pins"])]
    before, after = _balance(found["before"], "before"), _balance(found["after"], "after")
    if before.aliases != after.aliases:
        raise NoPlan(f"before and after are not of the same shards. {REMEDY}")
    for index, move in enumerate(moves):
        for alias in (move.source, move.target):
            if alias not in before.aliases:
                _refuse(f"moves[{index}]", f"is between two of {', '.join(before.aliases)}", alias)
    try:
        check_buckets(found["buckets"])
        return Plan(
            epoch=found["epoch"],
            buckets=found["buckets"],
            digest=found["digest"],
            by=found["by"],
            moves=tuple(moves),
            before=before,
            after=after,
            reasons=tuple(found["reasons"]),
            pins=tuple(pins),
        )
    except ValueError as error:
        raise NoPlan(f"{error} {REMEDY}") from error


def _balance(content: dict[str, Any], place: str) -> Balance:
    found = _fields(content, place, BALANCE)
    shares = [Share(**each) for each in _each(found["shares"], f"{place}.shares", SHARE)]
    return Balance(tuple(shares), Imbalance(**_fields(found["imbalance"], f"{place}.imbalance", IMBALANCE)))


def _pin(content: Any, place: str) -> tuple[int, str]:
    if not isinstance(content, list) or len(content) != 2:
        _refuse(place, "is a bucket and the alias of a shard", content)
    return _fields(dict(zip(("bucket", "shard"), content, strict=True)), place, PIN)["bucket"], content[1]


def _each(content: list[Any], place: str, checks: dict[str, Check]) -> list[dict[str, Any]]:
    return [_fields(each, f"{place}[{index}]", checks) for index, each in enumerate(content)]


def _fields(content: Any, place: str, checks: dict[str, Check]) -> dict[str, Any]:
    """Return the fields of an object, all of which are there, and no other, each as its check wants it."""
    if not isinstance(content, dict):
        _refuse(place, "is an object", content)
    prefix = f"{place}." if place else ""
    for name in content:
        if name not in checks and (place or name not in ("format", "version")):
            raise NoPlan(f"nothing is known of {prefix}{name}. {REMEDY}")
    for name, check in checks.items():
        if name not in content:
            raise NoPlan(f"{prefix}{name} is missing. {REMEDY}")
        wanted = check(content[name])
        if wanted is not None:
            _refuse(f"{prefix}{name}", wanted, content[name])
    return {name: content[name] for name in checks}


def _refuse(place: str, wanted: str, found: Any) -> NoReturn:
    shown = repr(found)
    raise NoPlan(f"{place} {wanted}, not {shown if len(shown) <= 60 else shown[:60] + '…'}. {REMEDY}")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of a name that is written twice, json would keep one silently.
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        double = next(name for name in names if names.count(name) > 1)
        raise NoPlan(f"{double!r} is written twice in one object. {REMEDY}")
    return found


def _constant(name: str) -> NoReturn:
    raise NoPlan(f"it has {name} where a number is expected. {REMEDY}")


def _count(value: Any) -> str | None:
    return None if is_count(value) else "is a whole number of 0 or more"


def _part(value: Any) -> str | None:
    return None if is_number(value) else "is a number of 0 or more"


def _weight(value: Any) -> str | None:
    return None if is_number(value) and value else "is a positive number"


def _load(value: Any) -> str | None:
    return None if value is None else _part(value)


def _text(value: Any) -> str | None:
    return None if isinstance(value, str) else "is a text"


def _alias(value: Any) -> str | None:
    return None if isinstance(value, str) and value else "is the alias of a shard"


def _digest(value: Any) -> str | None:
    good = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return None if good else "is 64 hexadecimal digits"


def _by(value: Any) -> str | None:
    return None if value in BY else f"is one of {', '.join(BY)}"


def _list(value: Any) -> str | None:
    return None if isinstance(value, list) else "is a list"


def _texts(value: Any) -> str | None:
    good = isinstance(value, list) and all(isinstance(each, str) for each in value)
    return None if good else "is a list of texts"


def _anything(value: Any) -> str | None:
    return None


PLAN: Final[dict[str, Check]] = {
    **{"epoch": _count, "buckets": _count, "digest": _digest, "by": _by},
    **{"moves": _list, "before": _anything, "after": _anything, "reasons": _texts, "pins": _list},
}
MOVE: Final[dict[str, Check]] = {
    **{"bucket": _count, "source": _alias, "target": _alias},
    **{"rows": _count, "bytes": _count, "reason": _text},
}
BALANCE: Final[dict[str, Check]] = {"shares": _list, "imbalance": _anything}
SHARE: Final[dict[str, Check]] = {
    **{"alias": _alias, "weight": _weight, "buckets": _count, "rows": _count, "bytes": _count, "load": _load}
}
IMBALANCE: Final[dict[str, Check]] = {"sd": _part, "max_over_mean": _part}
PIN: Final[dict[str, Check]] = {"bucket": _count, "shard": _alias}

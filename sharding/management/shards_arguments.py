"""
The arguments of `shards` that are pairs: read one by one, and together.
"""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError


def _pair(text: str, example: str) -> tuple[str, str]:
    name, separator, value = text.partition("=")
    if not name or not separator:
        raise ArgumentTypeError(f"{text!r} is not of the form {example}.")
    return name, value


def once(pairs: Iterable[tuple[Any, Any]], complaint: str) -> dict[Any, Any]:
    """Return the pairs as a dict, which would keep the last of two silently."""
    found: dict[Any, Any] = {}
    for name, value in pairs:
        if name in found:
            raise CommandError(f"{complaint} {name!r} twice. Keep one of them.")
        found[name] = value
    return found


def weight(text: str) -> tuple[str, float]:
    alias, value = _pair(text, "ALIAS=N")
    try:
        return alias, float(value)
    except ValueError:
        raise ArgumentTypeError(f"The weight {value!r} of {alias!r} is not a number.") from None


def pin(text: str) -> tuple[int, str]:
    bucket, alias = _pair(text, "BUCKET=ALIAS")
    if not bucket.isdigit():
        raise ArgumentTypeError(f"The bucket {bucket!r} is not a number.")
    return int(bucket), alias


def condition(text: str) -> tuple[str, Any]:
    """Return a lookup and its value, as text: the model's field converts it."""
    name, value = _pair(text, "LOOKUP=VALUE")
    if name.endswith(("__in", "__range")):
        values = [each.strip() for each in value.split(",")] if value else []
        if name.endswith("__range") and len(values) != 2:
            raise ArgumentTypeError(f"{text!r} does not hold two values. Write {name}=FROM,TO.")
        return name, values
    if name.endswith("__isnull"):
        return name, value.lower() in {"true", "1"}
    return name, None if value == "None" else value

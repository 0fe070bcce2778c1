"""
The arguments of `rebalance` that are sizes and parts.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError

#: As `display.size` writes them.
UNITS = {"": 1, "B": 1, "KB": 2**10, "MB": 2**20, "GB": 2**30, "TB": 2**40}


def byte_count(text: str) -> int:
    """Return a number of bytes that is written as 200GB, 1.5TB or 1048576."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)", text.strip())
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not float(found[1]):
        raise ArgumentTypeError(f"{text!r} is no size. Write it as 200GB; the units are kB, MB, GB and TB.")
    return int(float(found[1]) * unit)


def capacity(text: str) -> tuple[str, int]:
    alias, separator, value = text.partition("=")
    if not alias or not separator:
        raise ArgumentTypeError(f"{text!r} is not of the form ALIAS=SIZE.")
    return alias, byte_count(value)


def part(text: str) -> float:
    """Return a part of all: more than 0, and at most 1."""
    try:
        value = float(text)
    except ValueError:
        raise ArgumentTypeError(f"{text!r} is not a number.") from None
    if not 0 < value <= 1:
        raise ArgumentTypeError(f"{text} is no part of all rows, which is more than 0 and at most 1.")
    return value

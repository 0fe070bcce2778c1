"""
What `shards recover` tells of compensations: as lines, and as plain values.
"""

from __future__ import annotations

from typing import Any

from rich.console import Console

from sharding.commits.compensating import Compensated
from sharding.operations.display import table
from sharding.operations.status import reason


def show(done: Compensated, console: Console) -> None:
    """Print what was called, what failed and what waits."""
    shown = table("block", "compensation", "outcome")
    for each in done.calls:
        shown.add_row(each.block, each.path, "called" if each.error is None else f"failed: {_what(each.error)}")
    if shown.row_count:
        console.print(shown)
    for block, why in done.waiting.items():
        console.print(f"The compensations of {block} wait: {why}.")
    for alias, error in done.failures.items():
        console.print(f"{alias} could not be asked for compensations: {reason(error)}")


def data(done: Compensated) -> dict[str, Any]:
    """Return what was called, what failed and what waits, as plain values."""
    return {
        "called": [{"block": each.block, "compensation": each.path} for each in done.calls if each.error is None],
        "failed": [
            {"block": each.block, "compensation": each.path, "error": _what(each.error)}
            for each in done.calls
            if each.error is not None
        ],
        "waiting": dict(done.waiting),
        "failures": {alias: reason(error) for alias, error in done.failures.items()},
    }


def problem(done: Compensated) -> str | None:
    """Return what is to be told when compensations are left, or None."""
    if done.is_complete:
        return None
    left = len(done.failed) or len({*done.waiting, *done.failures})
    what = "failed" if done.failed else "wait"
    return f"Compensations are left: {left} {what}. Run this again when the cause is mended."


def _what(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"

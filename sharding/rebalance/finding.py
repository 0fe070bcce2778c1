"""
What is found before the first move: sentences, each with the value that is wrong and the remedy.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    """What a finding means for the moves."""

    #: They cannot begin.
    ERROR = "error"
    #: They can, and may take longer or do more than somebody expects.
    WARNING = "warning"
    #: Nobody here can know; somebody should look.
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that hinders moves, or may; ``check`` is the name of what found it."""

    severity: Severity
    check: str
    message: str

    def __str__(self) -> str:
        return self.message


def error(check: str, message: str) -> Finding:
    return Finding(Severity.ERROR, check, message)


def warning(check: str, message: str) -> Finding:
    return Finding(Severity.WARNING, check, message)


def note(check: str, message: str) -> Finding:
    return Finding(Severity.NOTE, check, message)


def listed(names: Collection[object], most: int = 5) -> str:
    """Return names for a sentence: some of them, and how many there are besides."""
    shown = ", ".join(map(str, list(names)[:most]))
    return shown if len(names) <= most else f"{shown} and {len(names) - most:,} more"

"""
What a writer was told to be stored, and what it met on the way.
"""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from django.db import Error, IntegrityError

import sharding

T = TypeVar("T")


@dataclass
class Book:
    """One writer's rows, of which nobody else changes any: what their values are, by table and primary key."""

    rows: dict[str, str] = field(default_factory=dict)
    met: Counter[str] = field(default_factory=Counter)

    def note(self, table: str, key: Any, *values: Any) -> None:
        self.rows[f"{table} {key}"] = shape(*values)

    def drop(self, table: str, key: Any) -> None:
        del self.rows[f"{table} {key}"]

    def of(self, table: str, key: Any) -> str:
        return self.rows[f"{table} {key}"]

    def acknowledged(self, write: Callable[[], T]) -> T:
        """
        Return what a write returns, which is repeated as often as it has lost, as the documentation says.

        An error means that nothing was applied.
        """
        while True:
            try:
                found = write()
            except (Error, sharding.errors.ShardingError) as error:
                if not sharding.retryable(error) or isinstance(error, IntegrityError):
                    raise
                self.met[type(error).__name__] += 1
                time.sleep(random.uniform(0.001, 0.02))
            else:
                self.met["writes"] += 1
                return found


def shape(*values: Any) -> str:
    """Return values as they are compared."""
    return " ".join("-" if value is None else str(value) for value in values)

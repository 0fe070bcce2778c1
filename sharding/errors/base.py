"""
What all errors of the toolkit have in common.
"""

from __future__ import annotations

from typing import Any


class ShardingError(Exception):
    """Root of every error of the toolkit. Its keyword arguments become attributes."""

    # Tracebacks and pickles name what people import.
    __module__ = "sharding.errors"

    def __init_subclass__(cls) -> None:
        if cls.__module__.startswith("sharding.errors."):
            cls.__module__ = "sharding.errors"

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own pickling calls the class with args alone; the facts travel as state.
        return type(self), self.args, self.__dict__

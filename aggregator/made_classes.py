"""
Classes of querysets that are made while the program runs, each of another one: pickle cannot find them by their names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Made:
    """Mixin of such a class, whose instances are pickled with what makes it."""

    #: The function that makes it, and what that was given.
    _made_by: Callable[[Any], Any]
    _made_of: Any

    def __reduce__(self) -> tuple[Any, ...]:
        state: Any = super().__getstate__()
        makers = []
        kind: Any = type(self)
        while "_made_by" in vars(kind):
            makers.append(kind._made_by)
            kind = kind._made_of
        return _empty, (kind, *reversed(makers)), state


def made(maker: Callable[[Any], Any], name: str, mixin: Any, original: Any) -> Any:
    """Return the class ``original`` with a mixin before it, which ``maker`` returns for it."""
    members = {"_made_by": staticmethod(maker), "_made_of": original}
    return type(f"{name}{original.__name__}", (mixin, original), members)


def _empty(kind: Any, *makers: Callable[[Any], Any]) -> Any:
    for maker in makers:
        kind = maker(kind)
    return kind.__new__(kind)

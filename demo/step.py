"""
A step of the demo: one function, which is run and whose own source is shown.

A function is given what its parameters name. One with a parameter ``fan_out`` is run twice: over the shards, and over
the one database that holds all rows.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import ModuleType
from typing import Any, TypeVar

Function = TypeVar("Function", bound=Callable[..., Any])

_MARK = "_demo_step"


@dataclass(frozen=True)
class Step:
    """A function of a chapter, and what must come of it as far as no other database can tell."""

    function: Callable[..., Any]
    #: The error that it must end with, before any database is sent anything.
    refused: type[Exception] | None = None
    #: The answer that it must give.
    expected: Any = None
    #: No database may be sent anything.
    silent: bool = False

    @property
    def title(self) -> str:
        """Return what the step shows: the first line of the docstring, or all of it."""
        return inspect.cleandoc(self.function.__doc__ or "")

    @property
    def code(self) -> str:
        """Return the body of the function as it is written, without the docstring."""
        source = textwrap.dedent(inspect.getsource(self.function))
        (definition,) = ast.parse(source).body
        assert isinstance(definition, ast.FunctionDef)
        assert definition.body[0].end_lineno is not None
        # Lines, not nodes: what is unparsed has lost its comments.
        return textwrap.dedent("\n".join(source.splitlines()[definition.body[0].end_lineno :])).strip("\n")

    @property
    def fans_out(self) -> bool:
        """Return whether the step asks all shards, and can ask one database instead."""
        return "fan_out" in self._parameters

    def run(self, given: Mapping[str, Any]) -> Any:
        """Call the function with those of the values ``given`` that it has parameters for."""
        return self.function(**{name: given[name] for name in self._parameters})

    @property
    def _parameters(self) -> Iterable[str]:
        return inspect.signature(self.function).parameters


def step(
    *, refused: type[Exception] | None = None, expected: Any = None, silent: bool = False
) -> Callable[[Function], Function]:
    """Make a function, which needs a docstring, a step of its module. For the arguments see Step."""

    def mark(function: Function) -> Function:
        setattr(function, _MARK, Step(function, refused, expected, silent or refused is not None))
        return function

    return mark


def steps_of(chapter: ModuleType) -> list[Step]:
    """Return the steps of a chapter in the order in which they are written."""
    marked = [getattr(each, _MARK) for each in vars(chapter).values() if hasattr(each, _MARK)]
    return sorted(marked, key=lambda each: each.function.__code__.co_firstlineno)

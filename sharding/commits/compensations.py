"""
What undoes a part of a block: a function that another process can find by its name, and arguments that JSON can hold.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from sharding.errors import CannotCompensate


@dataclass(frozen=True, slots=True)
class Compensation:
    """One call to make if only a part of the block commits."""

    #: ``module:qualified.name`` of the function.
    path: str
    #: JSON of the positional and the keyword arguments.
    arguments: str
    #: The savepoints that were open at the door: the rollback of one of them undoes what this would undo.
    savepoints: frozenset[str] = frozenset()


def compensation(
    function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], savepoints: Sequence[str]
) -> Compensation:
    """
    Return the compensation that calls a function with these arguments.

    Raises:
        CannotCompensate: another process could not find the function, or would get other arguments.
    """
    path = _path(function)
    return Compensation(path, _arguments(path, list(args), dict(kwargs)), frozenset(savepoints))


def call(path: str, arguments: str) -> None:
    """
    Call a compensation, by name.

    Raises:
        CannotCompensate: there is no such function any more.
        Exception: whatever the function raises.
    """
    args, kwargs = json.loads(arguments)
    _found(path)(*args, **kwargs)


def _path(function: Callable[..., Any]) -> str:
    module, name = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    path = f"{module}:{name}"
    try:
        findable = module not in {None, "__main__"} and _found(path) == function
    except CannotCompensate:
        findable = False
    if not findable:
        raise CannotCompensate(
            f"{function!r} cannot be a compensation: after a crash another process has to find it by its name. Pass a "
            f"function of a module, and what it needs as arguments; not a lambda, a closure, a partial or a method of "
            f"an object.",
            function=path,
        )
    return path


def _found(path: str) -> Callable[..., Any]:
    module, _, name = path.partition(":")
    try:
        found: Any = import_module(module)
        for each in name.split("."):
            found = getattr(found, each)
    except (ImportError, AttributeError) as error:
        raise CannotCompensate(
            f"The compensation {path!r} cannot be found ({error}). Bring the function back under this name, and run "
            f"`manage.py shards recover`.",
            function=path,
        ) from error
    if not callable(found):
        raise CannotCompensate(f"The compensation {path!r} cannot be called: it is {found!r}.", function=path)
    return found  # type: ignore[no-any-return]


def _arguments(path: str, args: list[Any], kwargs: dict[str, Any]) -> str:
    for value in (*args, *kwargs.values()):
        try:
            returned = json.loads(json.dumps(value))
        except (TypeError, ValueError) as error:
            raise _not_json(path, value, f"JSON cannot hold it ({error})") from error
        if not _same(returned, value):
            raise _not_json(path, value, f"it would come back from JSON as {returned!r}")
    return json.dumps([args, kwargs])


def _same(returned: Any, value: Any) -> bool:
    # 1 == True and 1 == 1.0, and a subclass of str or int loses its class.
    if type(returned) is not type(value) or returned != value:
        return False
    if isinstance(value, dict):
        return all(_same(returned[key], each) for key, each in value.items())
    return not isinstance(value, list) or all(map(_same, returned, value))


def _not_json(path: str, value: Any, why: str) -> CannotCompensate:
    return CannotCompensate(
        f"{value!r} cannot be an argument of the compensation {path!r}: {why}. Pass text, numbers, booleans, None, and "
        f"lists and dicts of these; of an object its id, as text.",
        function=path,
    )

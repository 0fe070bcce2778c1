"""
What cannot be a compensation: another process could not call it again after a crash.
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from django.db import connections, transaction
from django.db.transaction import TransactionManagementError

import sharding
from sharding.errors import CannotCompensate
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Region
from tests.transactions.books import undo

pytestmark = pytest.mark.django_db(transaction=True, available_apps=SHOP_ONLY)


def test_outside_of_a_block() -> None:
    message = (
        "sharding.compensate() was called outside of an atomic block, so there is nothing to compensate. Call it "
        "inside transaction.atomic() or sharding.atomic()."
    )
    with pytest.raises(TransactionManagementError, match=whole(message)):
        sharding.compensate(undo, "nothing")


def _closure() -> Callable[..., None]:
    def inside() -> None:
        """Nobody finds it from outside."""

    return inside


FUNCTIONS: dict[str, Any] = {
    "lambda": lambda: None,
    "closure": _closure(),
    "partial": functools.partial(undo, "x"),
    "bound method": Region(name="x").save,
    "no function": 7,
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
def test_functions_that_no_other_process_would_find(function: Any) -> None:
    message = (
        f"{function!r} cannot be a compensation: after a crash another process has to find it by its name. Pass a "
        f"function of a module, and what it needs as arguments; not a lambda, a closure, a partial or a method of an "
        f"object."
    )
    with transaction.atomic(using="default"):
        with pytest.raises(CannotCompensate, match=whole(message)):
            sharding.compensate(function)
        assert connections["default"].compensations == []


ID = uuid.UUID(int=1)
ARGUMENTS: dict[str, tuple[Any, str]] = {
    "uuid": (ID, "JSON cannot hold it (Object of type UUID is not JSON serializable)"),
    "date": (date(2026, 1, 1), "JSON cannot hold it (Object of type date is not JSON serializable)"),
    "tuple": ((1, 2), "it would come back from JSON as [1, 2]"),
    "nested tuple": ({"a": [(1,)]}, "it would come back from JSON as {'a': [[1]]}"),
    "number as key": ({1: "a"}, "it would come back from JSON as {'1': 'a'}"),
    "not a number": (float("nan"), "it would come back from JSON as nan"),
}


@pytest.mark.parametrize(("value", "why"), ARGUMENTS.values(), ids=ARGUMENTS)
def test_arguments_that_json_would_change(value: Any, why: str) -> None:
    message = (
        f"{value!r} cannot be an argument of the compensation 'tests.transactions.books:undo': {why}. Pass text, "
        f"numbers, booleans, None, and lists and dicts of these; of an object its id, as text."
    )
    with transaction.atomic(using="default"):
        with pytest.raises(CannotCompensate, match=whole(message)) as raised:
            sharding.compensate(undo, more=value)
        assert raised.value.function == "tests.transactions.books:undo"
        assert connections["default"].compensations == []

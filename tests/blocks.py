"""
Atomic blocks for tests.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from django.db import transaction


class Undone(Exception):
    """Ends a block that is to be rolled back."""


@contextmanager
def undone() -> Iterator[None]:
    """An atomic block that ends with an exception, and is rolled back."""
    with suppress(Undone), transaction.atomic(using="default"):
        yield
        raise Undone


#: transaction.savepoint() until Django 6.0.
savepoint: Callable[..., str] = getattr(transaction, "savepoint_create", transaction.savepoint)

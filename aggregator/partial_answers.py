"""
Querysets whose answers may lack the rows of some shards, and say so: fan_out(on_error="partial").

What cannot say so is not partial: it is whole, or an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from typing import Any, NoReturn

from django.db import DEFAULT_DB_ALIAS, connections

from aggregator.asking import unavailable
from aggregator.made_classes import Made, made
from aggregator.partial_results import (
    Missing,
    PartialAggregate,
    PartialAsyncIterator,
    PartialCount,
    PartialIterator,
)
from aggregator.policy import RAISE, Policy, Record
from sharding.errors import PartialRefused


class PartialAnswers(Made):
    """Mixin of a queryset's class. After its rows were fetched, ``missing`` says of which shards there are none."""

    #: {alias: why its rows are not among these}
    missing: Missing = {}
    model: Any
    query: Any
    _result_cache: Any

    def _fetch_all(self) -> None:
        if self._result_cache is not None:
            super()._fetch_all()  # type: ignore[misc]
            return
        with self._recording() as record:
            super()._fetch_all()  # type: ignore[misc]
        self.missing = record.missing

    # What can say what it lacks

    def count(self) -> PartialCount:
        if self._result_cache is not None:
            return PartialCount(len(self._result_cache), self.missing)
        with self._recording() as record:
            return PartialCount(super().count(), record.missing)  # type: ignore[misc]

    def aggregate(self, *args: Any, **kwargs: Any) -> PartialAggregate:
        with self._recording() as record:
            return PartialAggregate(super().aggregate(*args, **kwargs), record.missing)  # type: ignore[misc]

    def iterator(self, *args: Any, **kwargs: Any) -> PartialIterator:
        self._refuse_in_block()
        record = Record()
        return PartialIterator(self._asking(self._policy(record)).iterator(*args, **kwargs), record.missing)

    def aiterator(self, *args: Any, **kwargs: Any) -> PartialAsyncIterator:
        record = Record()
        return PartialAsyncIterator(self._asking(self._policy(record)).aiterator(*args, **kwargs), record.missing)

    # What is known for sure, or not at all

    def exists(self) -> bool:
        """
        Return True if a shard that answered has a row.

        Raises:
            ShardsUnavailable: none of them has, and some are missing.
        """
        if self._result_cache is None:
            with self._recording() as record:
                found, missing = bool(super().exists()), record.missing  # type: ignore[misc]
        else:
            found, missing = bool(self._result_cache), self.missing  # type: ignore[assignment]
        if missing and not found:
            raise unavailable(missing)
        return found

    def __getitem__(self, key: Any) -> Any:
        is_slice = isinstance(key, slice) and not key.step
        if is_slice or self._result_cache is not None:
            return super().__getitem__(key)  # type: ignore[misc]
        return self._entire()[key]

    def get(self, *args: Any, **kwargs: Any) -> Any:
        return self._entire().get(*args, **kwargs)

    def first(self) -> Any:
        return self._entire().first()

    def last(self) -> Any:
        return self._entire().last()

    def _earliest(self, *fields: Any) -> Any:
        return self._entire()._earliest(*fields)

    def in_bulk(self, *args: Any, **kwargs: Any) -> Any:
        return self._entire().in_bulk(*args, **kwargs)

    def contains(self, obj: Any) -> bool:
        return bool(self._entire().contains(obj))

    def update(self, **kwargs: Any) -> NoReturn:
        raise self._refused("update() writes to all shards or to none")

    def delete(self) -> NoReturn:
        raise self._refused("delete() writes to all shards or to none")

    def _add_hints(self, **hints: Any) -> None:
        # Prefetching deals the rows out to other objects, which cannot say what they lack.
        super()._add_hints(**hints)  # type: ignore[misc]
        self.query.fan_out = self._strict_policy()

    # How

    @contextmanager
    def _recording(self) -> Iterator[Record]:
        self._refuse_in_block()
        kept, record = self.query.fan_out, Record()
        self.query.fan_out = self._policy(record)
        try:
            yield record
        finally:
            self.query.fan_out = kept

    def _policy(self, record: Record) -> Policy:
        asked: Policy = self.query.fan_out
        # Prefetching takes the permission away.
        return replace(asked, record=None if asked.on_error == RAISE else record)

    def _entire(self) -> Any:
        """Return the same queryset without the permission."""
        return self._asking(self._strict_policy())

    def _strict_policy(self) -> Policy:
        asked: Policy = self.query.fan_out
        return replace(asked, on_error=RAISE, record=None)

    def _asking(self, policy: Policy) -> Any:
        """Return a clone of the class that the queryset would have otherwise."""
        queryset: Any = self
        clone = queryset._chain()
        clone.__class__ = self._made_of
        clone.query.fan_out = policy
        return clone

    def _refuse_in_block(self) -> None:
        door: Any = connections[DEFAULT_DB_ALIAS]
        if door.in_atomic_block and not all(block._from_testcase for block in door.atomic_blocks):
            raise self._refused(
                "an atomic block is lost with a shard that takes part in it. Ask outside of the block, or without "
                'on_error="partial"'
            )

    def _refused(self, reason: str) -> PartialRefused:
        label = self.model._meta.label
        return PartialRefused(f"No part of an answer to this {label} query will do: {reason}.", model=label)


@cache
def partial_class(whole: Any) -> Any:
    """Return the class of querysets of the class ``whole`` whose answers may be partial."""
    return made(partial_class, "Partial", PartialAnswers, whole)


def whole_class(queryset: Any) -> Any:
    """Return the class that a queryset would have if its answers could not be partial."""
    return queryset._made_of if isinstance(queryset, PartialAnswers) else type(queryset)


def entire(queryset: Any) -> Any:
    """Return a queryset such that its answers are whole, for whoever cannot say what they lack."""
    return queryset._entire() if isinstance(queryset, PartialAnswers) else queryset

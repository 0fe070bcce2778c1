"""
Pages by cursors: a page begins after the last row of the one before, wherever that is by then.

Unlike pages by number, they skip and repeat no row when rows are written meanwhile, and the hundredth costs what the
first one does.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, Literal, TypeVar

from django.core import signing
from django.db import connections
from django.db.models import F, Model, QuerySet
from django.db.models.expressions import OrderBy
from django.db.models.query import ModelIterable

from aggregator import page_counts
from aggregator.page_conditions import KeyText, Sorted, alias_of, beyond, narrowed, sorted_by, text_of
from aggregator.page_keys import Key, keys_of, type_of
from aggregator.repeated_rows import repeats_by_join, repeats_rows
from sharding.errors import InvalidCursor

M = TypeVar("M", bound=Model)

SALT = "aggregator.pagination"
FORWARD, BACK = "f", "b"
EXACT, ESTIMATED = "exact", "estimated"
VENDORS = ("postgresql", "sqlite")


@dataclass(frozen=True, slots=True)
class KeysetPage(Generic[M]):
    """The rows of one page, in order, and the cursors of the pages beside it; None where there is none."""

    items: list[M]
    next_cursor: str | None
    previous_cursor: str | None
    #: {alias: why the rows of this shard are not among them}; only fan_out(on_error="partial") lets a shard be missing.
    missing: Mapping[str, Exception] = dataclasses.field(default_factory=dict)

    def __iter__(self) -> Iterator[M]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class KeysetPaginator(Generic[M]):
    """
    Pages of a queryset of instances, fanned out or not.

    The order is that of ``ordering``, else of the queryset; the primary key is added to it, so that it is total.

    Args:
        ordering: what order_by() takes, except for random orders.
        count: what ``.count`` is: "exact", "estimated" by the planners' statistics, or None.

    Raises:
        ValueError: the queryset cannot be paged, and the message says why.
        FieldError: it cannot be ordered so.
    """

    def __init__(
        self,
        queryset: QuerySet[M],
        per_page: int,
        *,
        ordering: Sequence[Any] | None = None,
        count: Literal["exact", "estimated"] | None = "exact",
    ) -> None:
        if per_page < 1:
            raise ValueError(f"per_page must be at least 1, not {per_page!r}.")
        if count not in (EXACT, ESTIMATED, None):
            raise ValueError(f"count must be 'exact', 'estimated' or None, not {count!r}.")
        _refuse(queryset)
        if count == ESTIMATED:
            page_counts.require_estimates(queryset)
        self.per_page = per_page
        self._counted, self._count = queryset, count
        query: Any = queryset.query
        default: Any = queryset.model._meta.ordering if query.default_ordering else ()
        self._keys = keys_of(queryset, ordering if ordering is not None else query.order_by or default)
        self._queryset = _with_keys(queryset, self._keys)
        # A cursor fits only the order that it was made for, of keys that had the types that they have.
        types = [type_of(self._queryset.query.annotations[alias_of(place)]) for place in range(len(self._keys))]
        shape = "\0".join([queryset.model._meta.label_lower, *(key.name for key in self._keys), *types])
        self._shape = hashlib.sha256(shape.encode()).hexdigest()[:16]

    @cached_property
    def count(self) -> int | None:
        """Return how many rows all pages have: exactly, about, or None, as the paginator was told."""
        if self._count is None:
            return None
        return self._counted.count() if self._count == EXACT else page_counts.estimated(self._counted)

    def page(self, cursor: str | None = None) -> KeysetPage[M]:
        """
        Return the page that a cursor names; without one, the first.

        Raises:
            InvalidCursor: this paginator, with this order, did not make the cursor.
        """
        if cursor is None:
            return self._page(FORWARD, None)
        direction, values = self._read(cursor)
        return self._page(direction, values)

    def _page(self, direction: str, values: list[Any] | None) -> KeysetPage[M]:
        back = direction == BACK
        parts = [None] if values is None else beyond(self._sorted[back], values)
        rows, missing = self._rows(parts, back=back)
        more = len(rows) > self.per_page
        items = rows[: self.per_page]
        if back:
            items.reverse()
        has_next, has_previous = (True, more) if back else (more, values is not None)
        texts = [self._taken_from(item) for item in items]
        return KeysetPage(
            items,
            self._write(FORWARD, texts[-1]) if has_next and items else None,
            self._write(BACK, texts[0]) if has_previous and items else None,
            missing,
        )

    def _rows(self, parts: Sequence[Any], *, back: bool) -> tuple[list[M], Mapping[str, Exception]]:
        """
        Return the rows of a page, and one row more, which tells whether there is another page; and the missing shards.
        """
        rows: list[M] = []
        missing: dict[str, Exception] = {}
        for part in parts:
            wanted = self.per_page + 1 - len(rows)
            if wanted:
                found = narrowed(self._ordered[back], part)[:wanted]
                rows += found
                missing |= getattr(found, "missing", {})
        return rows, missing

    @cached_property
    def _ordered(self) -> tuple[QuerySet[M], QuerySet[M]]:
        """Return all rows, forward and back."""
        ways = [[_term(key, place, back=back) for place, key in enumerate(self._keys)] for back in (False, True)]
        return self._queryset.order_by(*ways[0]), self._queryset.order_by(*ways[1])

    @cached_property
    def _sorted(self) -> tuple[list[Sorted], list[Sorted]]:
        """Return by what rows are sorted, forward and back."""
        query, largest = self._queryset.query, connections[self._queryset.db].features.nulls_order_largest
        forward, back = (sorted_by(query, self._keys, nulls_largest=largest, back=back) for back in (False, True))
        return forward, back

    def _taken_from(self, instance: M) -> list[Any]:
        """Return the keys of an instance, which does not keep them."""
        return [instance.__dict__.pop(text_of(place)) for place in range(len(self._keys))]

    @cached_property
    def _signer(self) -> signing.Signer:
        # Without the time: the same page gives the same cursors, and so the same address.
        return signing.Signer(salt=SALT)

    def _write(self, direction: str, values: list[Any]) -> str:
        written = [{"hex": value.hex()} if isinstance(value, bytes) else value for value in values]
        return self._signer.sign_object([direction, self._shape, *written])

    def _read(self, cursor: str) -> tuple[str, list[Any]]:
        try:
            direction, shape, *values = self._signer.unsign_object(cursor)
        except (signing.BadSignature, ValueError, TypeError, AttributeError) as error:
            raise _invalid(cursor) from error
        if shape != self._shape or len(values) != len(self._keys):
            raise _invalid(cursor)
        return direction, [bytes.fromhex(each["hex"]) if isinstance(each, dict) else each for each in values]


def _refuse(queryset: QuerySet[Any]) -> None:
    query: Any = queryset.query
    if query.is_sliced:
        raise ValueError("KeysetPaginator makes the slices itself. Give it a queryset that is not sliced.")
    iterable: Any = queryset._iterable_class
    if not issubclass(iterable, ModelIterable):
        raise ValueError("KeysetPaginator pages instances. Give it a queryset without values() or values_list().")
    construct = (
        f"{query.combinator}()"
        if query.combinator
        else "distinct() on fields"
        if query.distinct_fields
        else "annotations by window functions"
        if any(each.contains_over_clause for each in query.annotations.values())
        else None
    )
    if construct is not None:
        raise ValueError(
            f"KeysetPaginator filters the rows that come before a page away, which would change what {construct} "
            f"gives. Page a queryset without that."
        )
    if repeats_rows(query):
        raise _repeated()
    vendor = connections[queryset.db].vendor
    if vendor not in VENDORS:
        raise ValueError(f"KeysetPaginator works on PostgreSQL and SQLite, and {queryset.db!r} is {vendor}.")


def _with_keys(queryset: QuerySet[M], keys: Sequence[Key]) -> QuerySet[M]:
    """Return the queryset without its order, and with the keys as annotations."""
    found: Any = queryset.order_by().alias(**{alias_of(place): key.expression for place, key in enumerate(keys)})
    if any(repeats_by_join(found.query, found.query.annotations[alias_of(place)]) for place in range(len(keys))):
        raise _repeated()
    annotated: QuerySet[M] = found.annotate(
        **{text_of(place): KeyText(F(alias_of(place))) for place in range(len(keys))}
    )
    return annotated


def _term(key: Key, place: int, *, back: bool) -> Any:
    nulls_first = None if key.nulls_first is None else key.nulls_first != back
    nulls = {None: {}, True: {"nulls_first": True}, False: {"nulls_last": True}}[nulls_first]
    return OrderBy(F(alias_of(place)), descending=key.descending != back, **nulls)


def _repeated() -> ValueError:
    return ValueError(
        "KeysetPaginator cannot tell apart the rows that a join to several rows repeats, and would skip some. "
        "Add distinct() to the queryset, or filter by Exists()."
    )


def _invalid(cursor: str) -> InvalidCursor:
    return InvalidCursor(
        f"The cursor {cursor!r} was not made for these pages. Start again at the first page.", cursor=cursor
    )

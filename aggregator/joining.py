"""
Joins of two querysets in Python, wherever their rows are: the left one is streamed, the right one asked for its keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from itertools import chain, islice
from typing import Any, Generic, Literal, TypeVar, cast, overload

from asgiref.sync import sync_to_async
from django.db.models import Manager, Model, Q, QuerySet

from aggregator.instances import queryset_of, value_of
from aggregator.join_columns import On, Pair, pairs
from aggregator.partial_answers import entire

L = TypeVar("L", bound=Model)
R = TypeVar("R", bound=Model)
Left = TypeVar("Left")
Right = TypeVar("Right")
Key = tuple[Any, ...]
Source = QuerySet[L, Any] | Manager[L]

MAX_BATCH_SIZE = 10_000
#: How many right rows are held for each left row of a batch, on average, before the batch is halved.
HELD = 10
#: How many keys of several columns one query names: each is a term of its own, and SQLite counts terms.
KEYS_OF_SEVERAL_COLUMNS = 200


@overload
def join(
    left: Source[L], right: Source[R], *, on: On, how: Literal["inner"] = "inner", batch_size: int = 1000
) -> Join[L, R]: ...
@overload
def join(
    left: Source[L], right: Source[R], *, on: On, how: Literal["left"], batch_size: int = 1000
) -> Join[L, R | None]: ...
def join(left: Any, right: Any, *, on: On, how: str = "inner", batch_size: int = 1000) -> Join[Any, Any]:
    """
    Return the pairs of rows of two querysets whose columns are equal, as SQL's JOIN gives them.

    They may be of any databases. The left one is streamed, ``batch_size`` rows at a time, and its order is that of the
    pairs; the right one is asked for the different keys of each batch. NULL equals nothing. With how="left", a left row
    without a right one comes with None.

    Args:
        on: the name of a field of both sides, a tuple of the left one's and the right one's, or a mapping of left names
            to right ones.

    Raises:
        TypeError: a side is no queryset of instances and no manager, or ``on`` has another form.
        FieldError: a column does not exist, or two cannot be compared; while iterating: one was not loaded.
        ValueError: ``how`` or ``batch_size`` is something else, or the right side is sliced, combined, has
            window functions or distinct("field"), which would mean something else for a part of its rows.
    """
    if how not in ("inner", "left"):
        raise ValueError(f"how must be 'inner' or 'left', not {how!r}. For a right join, exchange the sides.")
    if not 1 <= batch_size <= MAX_BATCH_SIZE:
        raise ValueError(f"batch_size must be from 1 to {MAX_BATCH_SIZE}, not {batch_size!r}.")
    # Pairs cannot say which shards they lack, so that none may be missing.
    lefts, rights = entire(queryset_of(left, "join")), entire(queryset_of(right, "join"))
    _check_right(rights.query)
    return Join(lefts, rights, pairs(on, lefts.model, rights.model), outer=how == "left", batch_size=batch_size)


class Join(Generic[Left, Right]):
    """The pairs of a join, by ``for`` and by ``async for``; each iteration asks the databases anew."""

    def __init__(self, left: Any, right: Any, pairs: Sequence[Pair], *, outer: bool, batch_size: int) -> None:
        self._left = left
        self._right = right
        self._pairs = pairs
        self._outer = outer
        self._size = batch_size
        self._keys_of_a_query = batch_size if len(pairs) == 1 else KEYS_OF_SEVERAL_COLUMNS

    def __iter__(self) -> Iterator[tuple[Left, Right]]:
        with closing(self._left.iterator(chunk_size=self._size)) as rows:
            while batch := list(islice(rows, self._size)):
                yield from self._joined([(row, self._key_of(row)) for row in batch])

    async def __aiter__(self) -> AsyncIterator[tuple[Left, Right]]:
        found = cast(Any, iter(self))
        try:
            while chunk := await sync_to_async(_take)(found, self._size):
                for pair in chunk:
                    yield pair
        finally:
            await sync_to_async(found.close)()

    def _key_of(self, row: Any) -> Key | None:
        """Return the right columns' values that equal a left row's; None if nothing does."""
        key = tuple(pair.converted(value_of(row, pair.left, "join")) for pair in self._pairs)
        return None if None in key else key

    def _joined(self, lefts: Sequence[tuple[Any, Key | None]]) -> Iterator[tuple[Any, Any]]:
        """Yield the pairs of some left rows, in their order, with a bounded number of right rows in memory."""
        found: dict[Key, list[Any]] = {key: [] for _, key in lefts if key is not None}
        with closing(self._matching(found)) as rights:
            held = _take(rights, HELD * self._size)
            more = _take(rights, 1)
            if more and len(lefts) == 1:
                yield from ((lefts[0][0], right) for _, right in chain(held, more, rights))
                return
        if more:
            half = len(lefts) // 2
            yield from self._joined(lefts[:half])
            yield from self._joined(lefts[half:])
            return
        for key, right in held:
            found[key].append(right)
        yield from self._paired(lefts, found)

    def _paired(self, lefts: Sequence[tuple[Any, Key | None]], found: dict[Key, list[Any]]) -> Iterator[Any]:
        for left, key in lefts:
            rights = [] if key is None else found[key]
            yield from ((left, right) for right in rights)
            if self._outer and not rights:
                yield left, None

    def _matching(self, wanted: dict[Key, Any]) -> Any:
        """Yield the right rows with one of the keys, and the key of each."""
        keys = list(wanted)
        for start in range(0, len(keys), self._keys_of_a_query):
            rights = self._right.filter(self._condition(keys[start : start + self._keys_of_a_query]))
            with closing(rights.iterator(chunk_size=self._size)) as rows:
                for right in rows:
                    key = tuple(value_of(right, pair.right, "join") for pair in self._pairs)
                    # A database may find more equal than Python does: text, under some collations.
                    if key in wanted:
                        yield key, right

    def _condition(self, keys: Sequence[Key]) -> Q:
        names = [pair.right.attname for pair in self._pairs]
        if len(names) == 1:
            return Q(**{f"{names[0]}__in": [key[0] for key in keys]})
        return Q(*(Q(**dict(zip(names, key, strict=True))) for key in keys), _connector=Q.OR)


def _take(rows: Iterator[Any], number: int) -> list[Any]:
    return list(islice(rows, number))


def _check_right(query: Any) -> None:
    """Refuse what a filter by keys would change: which rows a slice has, for one."""
    constructs = {
        "a slice": query.is_sliced,
        f"{query.combinator}()": bool(query.combinator),
        "distinct() by fields": bool(query.distinct_fields),
        "window functions": any(each.contains_over_clause for each in query.annotations.values()),
    }
    for construct, present in constructs.items():
        if present:
            raise ValueError(
                f"join() asks its right side for the rows with some keys at a time, which {construct} would not be the "
                f"same for. Leave it out, or exchange the sides."
            )

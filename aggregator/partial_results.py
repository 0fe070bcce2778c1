"""
The answers of fan_out(on_error="partial"), which say of themselves which shards they lack.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.core.paginator import Page, Paginator

#: {alias: the error because of which its rows, or some of them, are not in the answer}
Missing = Mapping[str, Exception]


class PartialCount(int):
    """A number of rows, of the shards that answered."""

    #: {alias: why its rows are not counted}
    missing: Missing

    def __new__(cls, number: int, missing: Missing) -> PartialCount:
        made = super().__new__(cls, number)
        made.missing = missing
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        return PartialCount, (int(self), self.missing)


class PartialAggregate(dict[str, Any]):
    """What aggregate() returns, over the rows of the shards that answered."""

    #: {alias: why its rows are not in it}
    missing: Missing

    def __init__(self, values: Mapping[str, Any], missing: Missing) -> None:
        super().__init__(values)
        self.missing = missing

    def __reduce__(self) -> tuple[Any, ...]:
        return PartialAggregate, (dict(self), self.missing)


class PartialIterator:
    """What iterator() returns. A shard that fails on the way is in ``missing`` from then on, without its other rows."""

    def __init__(self, rows: Any, missing: Missing) -> None:
        self._rows = rows
        #: {alias: why its rows, or the rest of them, do not come}
        self.missing = missing

    def __iter__(self) -> PartialIterator:
        return self

    def __next__(self) -> Any:
        return next(self._rows)

    def close(self) -> None:
        self._rows.close()


class PartialAsyncIterator:
    """What aiterator() returns; see PartialIterator."""

    def __init__(self, rows: Any, missing: Missing) -> None:
        self._rows = rows
        self.missing = missing

    def __aiter__(self) -> PartialAsyncIterator:
        return self

    async def __anext__(self) -> Any:
        return await anext(self._rows)

    async def aclose(self) -> None:
        await self._rows.aclose()


class PartialPage(Page):  # type: ignore[type-arg]
    """A page of a PartialPaginator."""

    def __init__(self, object_list: Any, number: int, paginator: Any) -> None:
        super().__init__(object_list, number, paginator)
        # Django puts a list in its place, which says nothing.
        self._rows = object_list

    @property
    def missing(self) -> Missing:
        """{alias: why its rows are not on the page, or not in the number of pages}"""
        rows = self._rows
        len(rows)
        return {**getattr(self.paginator.count, "missing", {}), **getattr(rows, "missing", {})}


class PartialPaginator(Paginator):  # type: ignore[type-arg]
    """Django's Paginator, for fan_out(on_error="partial"): its pages have ``missing``."""

    def _get_page(self, *args: Any, **kwargs: Any) -> PartialPage:
        return PartialPage(*args, **kwargs)

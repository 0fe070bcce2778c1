"""
Rows that are skipped: any shard might hold them, so each of them sends as many, only for them to be thrown away.
"""

from __future__ import annotations

import warnings
from typing import Any

from sharding import conf
from sharding.errors import DeepOffset


class DeepOffsetWarning(UserWarning):
    """A query of several shards skips more rows than SHARDING["WARN_OFFSET"]."""


def check(query: Any, offset: int) -> None:
    """
    Warn of an offset that is deep.

    Raises:
        DeepOffset: it is deeper than MAX_OFFSET.
    """
    settings = conf.current()
    if settings.max_offset is not None and offset > settings.max_offset:
        message = f"{_cost(query, offset)} SHARDING['MAX_OFFSET'] allows {settings.max_offset}."
        raise DeepOffset(message, model=query.model._meta.label, offset=offset, limit=settings.max_offset)
    if settings.warn_offset is not None and offset > settings.warn_offset:
        # Found by its message: the caller is as many frames away as Django likes.
        warnings.warn(_cost(query, offset), DeepOffsetWarning, stacklevel=2)


def _cost(query: Any, offset: int) -> str:
    return (
        f"This {query.model._meta.label} query skips {offset} rows, and every shard has to send as many for that. "
        f"Use aggregator.KeysetPaginator, whose last page costs what its first one does."
    )

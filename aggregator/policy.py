"""
What a caller of fan_out() says beside the rows: which shards, until when, how many at once, and if a part will do.

It travels as an attribute of the query, which every clone of a queryset carries along.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from django.db import DEFAULT_DB_ALIAS

from sharding import conf
from sharding.errors import UnknownShard

RAISE, PARTIAL = "raise", "partial"


@dataclass(slots=True)
class Record:
    """What one evaluation of a query finds out while it goes on."""

    #: {alias: why its rows, or some of them, are not in the answer}
    missing: dict[str, Exception] = field(default_factory=dict)
    #: By the clock of time.monotonic(); None before the first shard is asked, and without a timeout.
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """How a query of several shards is asked. Always true, since its presence is the opt-in."""

    #: None: every shard.
    shards: tuple[str, ...] | None = None
    #: Seconds; None: the setting's, and infinite: as long as it takes.
    timeout: float | None = None
    on_error: str = RAISE
    #: None: the setting's.
    max_parallel: int | None = None
    #: Where shards that are missing are written down. Without one they are an error, whatever ``on_error`` says: an
    #: answer that cannot say that it is partial must be whole.
    record: Record | None = field(default=None, compare=False)

    @property
    def seconds(self) -> float | None:
        """How long the answer may take; None: as long as it takes."""
        seconds = conf.current().fan_out_timeout if self.timeout is None else self.timeout
        return None if seconds is None or math.isinf(seconds) else seconds

    @property
    def lanes(self) -> int:
        """How many shards are asked at once."""
        return self.max_parallel or conf.current().max_parallel

    @property
    def is_plain(self) -> bool:
        """Whether every shard is waited for, as long as it takes, and none may be missing."""
        return self.record is None and self.seconds is None


#: Of queries that name several keys, and of nobody's.
WHOLE = Policy()


def of(query: Any) -> Policy:
    """Return the policy of a query, or of the inner query whose rows it aggregates."""
    found = getattr(query, "fan_out", None) or getattr(getattr(query, "inner_query", None), "fan_out", None)
    return found if isinstance(found, Policy) else WHOLE


def made(shards: Iterable[str] | None, timeout: float | None, on_error: str, max_parallel: int | None) -> Policy:
    """
    Return the policy that the arguments of fan_out() mean.

    Raises:
        UnknownShard: an alias is no shard of this cluster.
        ValueError: an argument is not what it may be.
    """
    if timeout is not None and not _is_timeout(timeout):
        limit = conf.MAX_TIMEOUT
        raise ValueError(f"timeout must be a number of seconds from 0.001 to {limit}, or math.inf, not {timeout!r}.")
    if on_error not in (RAISE, PARTIAL):
        raise ValueError(f"on_error must be 'raise' or 'partial', not {on_error!r}.")
    if max_parallel is not None and (type(max_parallel) is not int or max_parallel < 1):
        raise ValueError(f"max_parallel must be a positive integer, not {max_parallel!r}.")
    if isinstance(shards, str):
        raise ValueError(f"shards must be a list of aliases, not the text {shards!r}.")
    if shards is not None:
        shards = known(shards)
        if not shards:
            raise ValueError("shards must name at least one shard; leave it out to ask all of them.")
    return Policy(shards, timeout, on_error, max_parallel)


def known(aliases: Iterable[str]) -> tuple[str, ...]:
    """Return the aliases, or raise UnknownShard if one is no shard of this cluster."""
    aliases = tuple(aliases)
    shards = {DEFAULT_DB_ALIAS, *conf.current().shards}
    for alias in aliases:
        if alias not in shards:
            raise UnknownShard(
                f"{alias!r} is no shard of this cluster. Its shards are {', '.join(sorted(shards))}.", alias=alias
            )
    return aliases


def _is_timeout(value: Any) -> bool:
    return type(value) in (int, float) and (value == math.inf or 0.001 <= value <= conf.MAX_TIMEOUT)

"""
What a plan is made from, checked once, so that planning works on valid input.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from sharding.bucket_map import BucketMap
from sharding.rebalance.load import BY, Size, is_count, is_number


class Role(StrEnum):
    """What a plan may do with a shard. Pins go before roles, but for those to a drained shard, which make no sense."""

    #: It gives buckets and receives them.
    OPEN = "open"
    #: It gives buckets, and receives only those that are pinned to it.
    CLOSED = "closed"
    #: It has the buckets that are pinned to it and no other: a whale's own shard.
    RESERVED = "reserved"
    #: It ends without a bucket.
    DRAINED = "drained"


#: Roles of shards that share the load. The others have what they must.
SHARING = frozenset({Role.OPEN, Role.CLOSED})


@dataclass(frozen=True, slots=True)
class Shard:
    """
    A shard as the planner sees it.

    ``capacity`` is how many bytes of sharded rows it can hold; None is no limit.

    Raises:
        ValueError: the weight is no positive number, or the capacity no whole number of bytes.
    """

    alias: str
    weight: float = 1.0
    capacity: int | None = None
    role: Role = Role.OPEN

    def __post_init__(self) -> None:
        if not self.alias or not isinstance(self.alias, str):
            raise ValueError(f"A shard is named by its alias, not {self.alias!r}.")
        if not is_number(self.weight) or not self.weight:
            raise ValueError(f"The weight of {self.alias!r} is a positive number, not {self.weight!r}.")
        if self.capacity is not None and not is_count(self.capacity):
            raise ValueError(
                f"The capacity of {self.alias!r} is a whole number of bytes or None, not {self.capacity!r}."
            )
        if self.role not in {*Role}:
            raise ValueError(f"The role of {self.alias!r} is one of {', '.join(Role)}, not {self.role!r}.")
        object.__setattr__(self, "role", Role(self.role))


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """
    Where things are and what is wanted.

    Every owner in ``map`` is among ``shards``. A bucket without an entry in ``sizes`` is empty.

    ``threshold``, ``tolerance`` and ``improvement`` say when a move is worth its while. Nothing is balanced as long as
    each shard's load is within ``threshold`` of its fair share (0.1: from 0.9 to 1.1 times); once something is, it is
    balanced until each is within ``tolerance`` of it, so that plans are neither made for trifles nor endless. And a
    move counts only if it is worth its bucket: of the difference d between two shards' relative loads it leaves d', and
    (d + d') / (d - d') is at least ``improvement``. That is 1 or more where no shard passes the other, and 0 where they
    would merely change places.

    Of plans that end as even, the one with the fewest bytes counts; each move is taken for ``per_move`` bytes more, so
    that a thousand small ones are not made to spare a little.

    Raises:
        ValueError: something is missing, contradicts another thing, or is no sensible number.
    """

    map: BucketMap
    shards: tuple[Shard, ...]
    sizes: Mapping[int, Size] = field(default_factory=dict)
    pins: Mapping[int, str] = field(default_factory=dict)
    by: str = "bytes"
    threshold: float = 0.1
    tolerance: float = 0.01
    improvement: float = 0.5
    per_move: int = 4 * 1024 * 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "shards", tuple(sorted(self.shards, key=lambda shard: shard.alias)))
        self._check_shards()
        self._check_buckets()
        self._check_numbers()

    @property
    def named(self) -> dict[str, Shard]:
        """The shards by alias, sorted."""
        return {shard.alias: shard for shard in self.shards}

    @property
    def sharing(self) -> dict[str, float]:
        """The weights of the shards that share the load, sorted by alias."""
        return {shard.alias: shard.weight for shard in self.shards if shard.role in SHARING}

    def _check_shards(self) -> None:
        names = [shard.alias for shard in self.shards]
        for alias in names:
            if names.count(alias) > 1:
                raise ValueError(f"The shard {alias!r} is given {names.count(alias)} times. Give it once.")
        for alias in self.map.aliases:
            if alias not in names:
                raise ValueError(
                    f"{alias!r} owns {len(self.map.buckets_of(alias))} buckets and is not among the shards: "
                    f"{', '.join(names) or 'there is none'}. Declare it, or drain it first."
                )

    def _check_buckets(self) -> None:
        for what, buckets in (("has a size", self.sizes), ("is pinned", self.pins)):
            for bucket in buckets:
                if not is_count(bucket) or bucket >= self.map.buckets:
                    raise ValueError(
                        f"Bucket {bucket!r} {what} and does not exist: this cluster has the buckets 0 to "
                        f"{self.map.buckets - 1}."
                    )
        named = self.named
        for bucket, alias in self.pins.items():
            if alias not in named:
                raise ValueError(
                    f"Bucket {bucket} is pinned to {alias!r}, which is none of the shards: {', '.join(named)}. "
                    f"Declare the shard or remove the pin."
                )
            if named[alias].role is Role.DRAINED:
                raise ValueError(
                    f"Bucket {bucket} is pinned to {alias!r}, which is to be drained. Remove the pin, or pin the "
                    f"bucket to another shard."
                )

    def _check_numbers(self) -> None:
        if self.by not in BY:
            raise ValueError(f"Shards are balanced by one of {', '.join(BY)}, not by {self.by!r}.")
        if not is_count(self.per_move):
            raise ValueError(f"What a move costs is a whole number of bytes of 0 or more, not {self.per_move!r}.")
        for name in ("threshold", "tolerance", "improvement"):
            value = getattr(self, name)
            if not is_number(value):
                raise ValueError(f"The {name} is a number of 0 or more, as 0.1 is for 10 %, not {value!r}.")

"""
What an operator asks of a plan, before anything is known of the cluster; what contradicts itself is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """
    Options of `rebalance plan`; without any, the shards are brought near their fair shares.

    Raises:
        ValueError: two of them contradict each other.
    """

    add: tuple[str, ...] = ()
    drain: tuple[str, ...] = ()
    #: A shard key, as text, after the label of its model and a colon where there are several kinds of keys.
    isolate: str | None = None
    #: The shard that the key is to have; None for an empty one.
    to: str | None = None
    #: Whether that shard keeps its other buckets.
    shared: bool = False
    #: Beside SHARDING["WEIGHTS"].
    weights: Mapping[str, float] = field(default_factory=dict)
    #: Bytes of sharded rows that a shard can hold.
    capacity: Mapping[str, int] = field(default_factory=dict)
    #: The shards that may receive buckets; all if there is none.
    only: tuple[str, ...] = ()
    #: Shards that have the buckets which are pinned to them, and no other.
    reserve: tuple[str, ...] = ()
    by: str = "bytes"
    threshold: float = 0.1
    tolerance: float = 0.01
    #: Which part of the rows is looked at to weigh them; None to take them for equally long.
    sample: float | None = None

    def __post_init__(self) -> None:
        if self.isolate is not None:
            self._refuse("--isolate moves one bucket", add=self.add, drain=self.drain)
        elif self.to is not None or self.shared:
            given = "--shared" if self.to is None else "--to"
            raise ValueError(f"{given} is about the key of --isolate, and none is given. Name a key, or leave it out.")
        if self.add:
            self._refuse("--add says which shards receive", only=self.only)
        for alias in self.drain:
            for option in ("add", "only", "reserve"):
                if alias in getattr(self, option):
                    raise ValueError(f"{alias!r} is to be drained, so --{option} cannot name it as well.")

    def _refuse(self, reason: str, **others: tuple[str, ...]) -> None:
        for option, given in others.items():
            if given:
                raise ValueError(f"{reason}, so --{option} cannot be given as well. Make two plans.")

    @property
    def named(self) -> dict[str, str]:
        """Return the shards that are named, each with the option that does so."""
        found: dict[str, str] = {}
        for option in ("add", "drain", "only", "reserve", "weights", "capacity"):
            for alias in getattr(self, option):
                found.setdefault(alias, f"--{option}")
        if self.to is not None:
            found.setdefault(self.to, "--to")
        return found

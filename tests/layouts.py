"""
Who owns the buckets: the three kinds of cluster on which the seam must behave alike, and keys that live there.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count, islice

from sharding import bucket_of, cluster_map, shard_of
from tests.shop.models import Customer

#: The databases of the cluster: `default` and the shards.
CLUSTER = ["default", "shard_a", "shard_b", "shard_c"]

#: For transactional tests: only these apps' tables are emptied after each of them.
SHOP_ONLY = ["sharding", "tests.shop"]


@dataclass(frozen=True, slots=True)
class Layout:
    """A bucket map, and the shard on which a test's rows live."""

    name: str
    #: The aliases that own the buckets in turn.
    owners: tuple[str, ...]
    #: Where the rows of ``tenant`` live, and another owner if there is one.
    home: str
    away: str | None

    def __str__(self) -> str:
        return self.name

    def expect(self, *, home: int = 0, default: int = 0, away: int = 0) -> dict[str, int]:
        """Return the number of statements by alias, for assert_statements(); roles of one database add up."""
        found: dict[str, int] = {}
        for alias, number in ((self.home, home), ("default", default), (self.away or self.home, away)):
            if number:
                found[alias] = found.get(alias, 0) + number
        return found


LAYOUTS = (
    Layout("cluster of one", ("default",), "default", None),
    Layout("part, at default", ("default", "shard_a", "shard_b"), "default", "shard_b"),
    Layout("part, elsewhere", ("default", "shard_a", "shard_b"), "shard_a", "default"),
    Layout("none at default", ("shard_a", "shard_b", "shard_c"), "shard_b", "shard_c"),
)


def tenants_on(alias: str) -> Iterator[int]:
    """Yield the tenants, 0 among them, that live on a shard today, which must own a bucket."""
    assert alias in cluster_map.current().aliases, f"{alias} owns no bucket now, so no tenant lives there."
    return (tenant for tenant in count() if shard_of(tenant, model=Customer) == alias)


def tenant_on(alias: str, place: int = 0) -> int:
    """Return one of the tenants that live on a shard: the first one unless ``place`` says otherwise."""
    return next(islice(tenants_on(alias), place, None))


def neighbour_in_bucket(tenant: int) -> int:
    """Return another tenant of the same bucket."""
    bucket = bucket_of(tenant, model=Customer)
    return next(each for each in count(tenant + 1) if bucket_of(each, model=Customer) == bucket)

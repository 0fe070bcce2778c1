"""
Something else than a query on every shard: raw SQL over sharded tables, statistics, maintenance.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from django.db import DEFAULT_DB_ALIAS, connections

from aggregator import executor, policy
from sharding import cluster_map

T = TypeVar("T")


def on_each_shard(
    function: Callable[[Any], T], *, shards: Iterable[str] | None = None, parallel: bool = False
) -> dict[str, T]:
    """
    Call ``function`` with the caller's connection to each shard, and return what it returns: {alias: result}.

    Inside, raw SQL may name sharded tables, also on `default` where that owns buckets; inside an atomic block the
    shards take part in it. With ``parallel``, the calls run in several threads, and the function must use nothing but
    the connection that it is given.

    Args:
        shards: the aliases; left out, every shard that owns buckets.

    Raises:
        UnknownShard: an alias is no shard of this cluster.
        ShardsUnavailable: a shard does not answer.
    """
    aliases = cluster_map.current().aliases if shards is None else policy.known(shards)
    # A function may do what takes long, or what no transaction allows.
    patient = policy.Policy(timeout=math.inf)
    with executor.participating(connections[DEFAULT_DB_ALIAS], aliases, patient) as owners:
        results = executor.run(owners, function, parallel=parallel)
    return dict(zip(aliases, results, strict=True))

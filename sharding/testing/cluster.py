"""
The cluster of a test run: test databases are initialised as they are made, and a test can choose who owns what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from django.db import DEFAULT_DB_ALIAS, connections, transaction
from django.test.testcases import DatabaseOperationForbidden  # type: ignore[attr-defined]

from sharding import cluster_map, conf, placement, reference_sync, registry
from sharding.control import BucketOwner, Cluster
from sharding.fence import raising
from sharding.initialisation import identify, initialise
from sharding.lookups import states

#: The shard of each bucket, and the epoch since which it has it.
Owners = dict[int, tuple[str, int]]


def initialise_test_database(alias: str) -> None:
    """Write the map into a fresh test database of `default`, dealt evenly, and the identity into each shard's."""
    if alias == DEFAULT_DB_ALIAS:
        # No table has a row yet.
        states.mark_built([lookup.name for entry in registry.entries() for lookup in entry.lookups])
    settings = conf.current()
    if not settings.shards or alias not in (DEFAULT_DB_ALIAS, *settings.shards):
        return
    if alias == DEFAULT_DB_ALIAS and not Cluster.objects.using(DEFAULT_DB_ALIAS).exists():
        proposal = placement.propose("even", settings.shards, settings.buckets, weights=settings.weights)
        initialise(proposal.owners)
    identify(alias)
    raising.raise_around(alias)
    if alias != DEFAULT_DB_ALIAS:
        reference_sync.bring_up_to_date(alias)


@contextmanager
def owners(*aliases: str) -> Iterator[None]:
    """
    Let the given aliases own the buckets in turn inside: ``owners("default")`` is a cluster of one.

    The map is written and put back outside of any transaction, so no atomic block may be open.
    """
    before = _stored()
    write(aliases)
    try:
        yield
    finally:
        # Each shard has its buckets since when it had them: the fences of those that were not asked say so.
        _write(lambda epoch: before)


def write(aliases: Sequence[str]) -> None:
    """Store a map in which the aliases own the buckets in turn, with the next epoch, and use it at once."""
    stored = _stored()
    given = {bucket: aliases[bucket % len(aliases)] for bucket in stored}
    # As moves do: the epoch is that since which the shard has the bucket.
    _write(
        lambda epoch: {
            bucket: where if where[0] == given[bucket] else (given[bucket], epoch) for bucket, where in stored.items()
        }
    )


def _stored() -> Owners:
    rows = BucketOwner.objects.using(DEFAULT_DB_ALIAS).values_list("bucket", "shard", "epoch")
    return {bucket: (shard, epoch) for bucket, shard, epoch in rows}


def _write(wanted: Callable[[int], Owners]) -> None:
    """Store what is wanted of the epoch that begins, and use it at once."""
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).get()
        cluster.epoch += 1
        cluster.save(using=DEFAULT_DB_ALIAS)
        stored = _stored()
        changed: dict[tuple[str, int], list[int]] = {}
        for bucket, where in wanted(cluster.epoch).items():
            if stored[bucket] != where:
                changed.setdefault(where, []).append(bucket)
        for (shard, epoch), buckets in changed.items():
            _give(buckets, shard, epoch)
    cluster_map.refresh()
    for alias in (DEFAULT_DB_ALIAS, *conf.current().shards):
        # On a database that the test may not use, nothing of it is written, and the map is put back in the end.
        with suppress(DatabaseOperationForbidden):
            raising.follow_map(alias)


def _give(buckets: list[int], shard: str, epoch: int) -> None:
    # Thousands of parameters take longer than all the rest.
    those = ", ".join(map(str, buckets))
    with connections[DEFAULT_DB_ALIAS].cursor() as cursor:
        cursor.execute(
            f"UPDATE {BucketOwner._meta.db_table} SET shard = %s, epoch = %s WHERE bucket IN ({those})", [shard, epoch]
        )

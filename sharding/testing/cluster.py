"""
The cluster of a test run: test databases are initialised as they are made, and a test can choose who owns what.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from django.db import DEFAULT_DB_ALIAS, transaction
from django.test.testcases import DatabaseOperationForbidden  # type: ignore[attr-defined]

from sharding import cluster_map, conf, placement, reference_sync, registry
from sharding.control import BucketOwner, Cluster
from sharding.fence import raising
from sharding.initialisation import identify, initialise
from sharding.lookups import states


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
    before = cluster_map.refresh().owners
    epochs = dict(BucketOwner.objects.using(DEFAULT_DB_ALIAS).values_list("bucket", "epoch"))
    write(aliases)
    try:
        yield
    finally:
        write(before)
        _put_back(epochs)


def _put_back(epochs: dict[int, int]) -> None:
    """Let each shard have its buckets since when it had them: the fences of those that were not asked say so."""
    buckets: dict[int, list[int]] = {}
    for bucket, epoch in epochs.items():
        buckets.setdefault(epoch, []).append(bucket)
    for epoch, those in buckets.items():
        BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket__in=those).exclude(epoch=epoch).update(epoch=epoch)


def write(aliases: Sequence[str]) -> None:
    """Store a map in which the aliases own the buckets in turn, with the next epoch, and use it at once."""
    buckets = conf.current().buckets
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        cluster = Cluster.objects.using(DEFAULT_DB_ALIAS).get()
        cluster.epoch += 1
        cluster.save(using=DEFAULT_DB_ALIAS)
        table = BucketOwner.objects.using(DEFAULT_DB_ALIAS)
        for alias in sorted(set(aliases)):
            owned = [bucket for bucket in range(buckets) if aliases[bucket % len(aliases)] == alias]
            # As moves do: the epoch is that since which the shard has the bucket.
            table.filter(bucket__in=owned).exclude(shard=alias).update(shard=alias, epoch=cluster.epoch)
    cluster_map.refresh()
    for alias in (DEFAULT_DB_ALIAS, *conf.current().shards):
        # On a database that the test may not use, nothing of it is written, and the map is put back in the end.
        with suppress(DatabaseOperationForbidden):
            raising.follow_map(alias)

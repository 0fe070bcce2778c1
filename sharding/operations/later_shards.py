"""
Shards that were declared since the cluster was initialised are made known; the bucket map stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

from sharding import cluster_map, initialisation, reference_sync, stored_cluster
from sharding.errors import MapConflict, MapOutdated
from sharding.operations import places
from sharding.operations.equipment import equip


@dataclass(frozen=True, slots=True)
class Completed:
    """What was made known."""

    numbered: tuple[str, ...]
    identified: tuple[str, ...]
    #: Shards that were given the rows of reference models.
    copied: tuple[str, ...] = ()


def complete() -> Completed:
    """
    Number and identify the shards that were declared since the cluster was initialised, and give the rows of reference
    models to those that lack them.

    Raises:
        MapConflict: nothing is missing; or a database is another shard than its alias says.
        FenceMissing: as equip().
        MapOutdated: a shard has seen a newer map than the control database holds.
    """
    cluster_map.refresh()
    stored = stored_cluster.cluster()
    if stored is None:
        raise MapConflict("The cluster vanished from the control database while it was read. Run the command again.")
    numbered = tuple(alias for alias in places.databases() if alias not in stored.numbers)
    silent = []
    for alias in places.databases():
        found = stored_cluster.identity(alias)
        if found is None:
            silent.append(alias)
            continue
        message = stored_cluster.contradiction(alias, found, stored)
        if message is not None and found.cluster == stored.uuid and found.shard == alias:
            raise MapOutdated(f"{message} Restore the newest map of the control database.", alias=alias)
        if message is not None:
            raise MapConflict(f"{message} Correct the URL of {alias!r}.")
    behind = tuple(reference_sync.shards_behind())
    if not numbered and not silent and not behind:
        raise MapConflict("This cluster is initialised already. Buckets move with `manage.py rebalance`.")
    initialisation.number_shards()
    for alias in silent:
        initialisation.identify(alias)
    equip(silent, behind)
    cluster_map.refresh()
    return Completed(numbered, tuple(silent), behind)

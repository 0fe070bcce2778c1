"""
The first bucket map of a cluster: proposed, compared with the rows that are there already, and written.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction

from sharding import conf, initialisation, placement, stored_cluster
from sharding.bucket_map import BucketMap, Imbalance
from sharding.errors import MapConflict, ShardsUnavailable, UnknownShard
from sharding.operations import misplacement, places
from sharding.operations.adoption import modulo_owners
from sharding.operations.equipment import equip

#: Key of the advisory lock by which two aliases of one database betray themselves.
LOCK = 0x5AAD


@dataclass(frozen=True, slots=True)
class Wish:
    """What was asked for; what is left out comes from SHARDING."""

    placement: str | None = None
    weights: Mapping[str, float] = field(default_factory=dict)
    pins: Mapping[int, str] = field(default_factory=dict)
    all_on: str | None = None
    adopt_modulo: int | None = None

    def __bool__(self) -> bool:
        return self != Wish()


@dataclass(frozen=True, slots=True)
class FirstMap:
    """A proposal: who owns which bucket, by what rule, and how even that is."""

    owners: tuple[str, ...]
    rule: str
    imbalance: Imbalance
    warnings: tuple[str, ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """How many buckets each database would own; declared shards that own none are in it."""
        found = BucketMap(0, self.owners).counts()
        return {alias: found.get(alias, 0) for alias in places.databases() if alias in found or alias != "default"}


def proposed(wish: Wish) -> FirstMap:
    """
    Return the map that a wish leads to. Without shards, `default` owns everything.

    Raises:
        UnknownShard: an alias is no shard of this cluster.
        MapConflict: rows do not live where --adopt-modulo says.
        ValueError: the placement cannot do what is asked, or one option leaves nothing to another.
    """
    settings = conf.current()
    _refuse_contradictions(wish)
    if wish.adopt_modulo is not None:
        owners = modulo_owners(wish.adopt_modulo)
        return FirstMap(owners, f"key % {wish.adopt_modulo}", BucketMap(0, owners).imbalance())
    whole = wish.all_on or (None if settings.shards else DEFAULT_DB_ALIAS)
    if whole is not None:
        _require_known(whole)
        owners = (whole,) * settings.buckets
        return FirstMap(owners, f"all on {whole}", BucketMap(0, owners).imbalance())
    return _dealt(wish)


def _refuse_contradictions(wish: Wish) -> None:
    given = [
        option
        for option, is_given in (
            ("--adopt-modulo", wish.adopt_modulo is not None),
            ("--all-on", wish.all_on is not None),
            ("--placement", wish.placement),
            ("--weights", wish.weights),
            ("--pin", wish.pins),
        )
        if is_given
    ]
    if len(given) > 1 and given[0] in {"--adopt-modulo", "--all-on"}:
        raise ValueError(f"{given[0]} settles every bucket, so {', '.join(given[1:])} cannot be given as well.")


def _dealt(wish: Wish) -> FirstMap:
    """Return what the placement proposes; `default` takes part only where a weight names it."""
    settings = conf.current()
    name = wish.placement or settings.placement
    weights, pins = {**settings.weights, **wish.weights}, {**settings.pins, **wish.pins}
    shards = (*({DEFAULT_DB_ALIAS} & weights.keys()), *settings.shards)
    # A bucket that is pinned to `default` does not make it a shard like the others, with a share of its own.
    kept = {bucket: alias for bucket, alias in pins.items() if alias == DEFAULT_DB_ALIAS and alias not in shards}
    others = {bucket: alias for bucket, alias in pins.items() if bucket not in kept}
    found = placement.propose(name, shards, settings.buckets, weights=weights, pins=others)
    for bucket in kept:
        _require_bucket(bucket)
    owners = tuple(kept.get(bucket, alias) for bucket, alias in enumerate(found.owners))
    return FirstMap(owners, name, found.imbalance, found.warnings)


def check_databases() -> None:
    """
    Check that every database answers, is migrated, is no other cluster's, and is a database of its own.

    Raises:
        ShardsUnavailable: some do not answer.
        MapConflict: one is not migrated, belongs to another cluster, or has two aliases.
    """
    failures: dict[str, BaseException] = {}
    for alias in places.databases():
        try:
            if not stored_cluster.has_tables(alias):
                raise MapConflict(
                    f"The database of {alias!r} has no tables of the app 'sharding'. Run `manage.py migrate_all` first."
                )
        except Error as error:
            failures[alias] = error
    if failures:
        reasons = "; ".join(f"{alias}: {' '.join(str(error).split())}" for alias, error in failures.items())
        raise ShardsUnavailable(
            f"Nothing was initialised, because some databases do not answer. {reasons}", failures=failures
        )
    _check_distinct()


def refuse_strangers() -> None:
    """
    Refuse databases that belong to a cluster, before there is one.

    Raises:
        MapConflict: one says that it does.
    """
    for alias in places.databases():
        found = stored_cluster.identity(alias)
        if found is not None:
            raise MapConflict(
                f"The database of {alias!r} says that it is {found.shard!r} of cluster {found.cluster}, but this "
                f"control database holds no cluster. Correct the URL of {alias!r}, or restore the control database."
            )


def refuse_misplaced(first: FirstMap) -> list[str]:
    """
    Refuse a map under which stored rows would not be found; return the databases that hold rows.

    Raises:
        MapConflict: rows are on a database that would not own them.
    """
    holders = misplacement.holders(places.databases())
    misplacement.refuse(list(misplacement.misplaced(first.owners, holders)), holders)
    return holders


def write(first: FirstMap) -> None:
    """
    Store the map as epoch 1, number the shards, and give every database its identity and the reference rows.

    Raises:
        FenceMissing: as equip().
    """
    initialisation.initialise(first.owners)
    initialisation.identify_all()
    equip(places.databases(), conf.current().shards)


def _require_known(alias: str) -> None:
    if alias not in places.databases():
        raise UnknownShard(
            f"{alias!r} is no shard of this cluster. Its databases are {', '.join(places.databases())}.", alias=alias
        )


def _require_bucket(bucket: int) -> None:
    last = conf.current().buckets - 1
    if bucket > last:
        raise ValueError(f"Bucket {bucket!r} is pinned but does not exist: this cluster has the buckets 0 to {last}.")


def _check_distinct() -> None:
    aliases = [alias for alias in places.databases() if places.is_postgresql(alias)]
    with ExitStack() as stack:
        for alias in aliases:
            stack.enter_context(transaction.atomic(using=alias))
            with connections[alias].cursor() as cursor:
                # Advisory locks are held by a session within one database: a second session is refused there alone.
                cursor.execute("SELECT pg_try_advisory_xact_lock(%s)", [LOCK])
                if not cursor.fetchone()[0]:
                    raise MapConflict(
                        f"The database of {alias!r} has another alias as well, or is being initialised by somebody "
                        f"else. Give every shard a database of its own."
                    )

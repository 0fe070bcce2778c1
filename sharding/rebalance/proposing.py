"""
Make the plan that an operator asks for, from the stored bucket map and from what the shards have. Nothing is changed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, NotSupportedError, connections

from sharding import cluster_map, conf, registry
from sharding.bucket_map import BucketMap
from sharding.control import ShardNumber
from sharding.errors import UnknownShard
from sharding.operations import places
from sharding.rebalance import planning
from sharding.rebalance.load import NOTHING
from sharding.rebalance.neighbours import Neighbour, neighbours
from sharding.rebalance.plan import Plan
from sharding.rebalance.request import Request, Role, Shard
from sharding.rebalance.sizes import cluster_sizes, key_in_bucket
from sharding.rebalance.wishes import Wish


@dataclass(frozen=True, slots=True)
class Proposal:
    """A plan, and what else is to be known of it."""

    plan: Plan
    #: The largest keys that come along with one that is isolated.
    neighbours: tuple[Neighbour, ...] = ()
    #: Sentences.
    notes: tuple[str, ...] = ()


def propose(wish: Wish) -> Proposal:
    """
    Return the plan for a wish.

    Raises:
        MapMissing: the cluster was never initialised.
        UnknownShard: a shard is not declared, or the cluster does not know it.
        NotSupportedError: a shard is not PostgreSQL.
        NoRoom: what has to leave a shard does not fit on the others.
        ValueError: the wish is none that a plan can be made for.
    """
    bucket_map = cluster_map.refresh()
    unknown = _unknown(bucket_map)
    _require_known(wish, unknown, bucket_map)
    shards = tuple(_shards(wish, bucket_map, unknown))
    _require_servers([shard.alias for shard in shards])
    request = Request(
        map=bucket_map,
        shards=shards,
        sizes=cluster_sizes(bucket_map, sample=wish.sample),
        pins=conf.current().pins,
        by=wish.by,
        threshold=wish.threshold,
        tolerance=wish.tolerance,
    )
    notes = tuple(_notes(wish, unknown))
    if wish.isolate is not None:
        return _isolated(wish, wish.isolate, request, notes)
    if wish.add:
        return Proposal(planning.add(request, wish.add), notes=notes)
    if wish.drain:
        return Proposal(planning.drain(request, wish.drain), notes=notes)
    return Proposal(planning.rebalance(request), notes=notes)


def sharded_key(text: str) -> tuple[registry.Entry, Any]:
    """
    Return a model that has a shard key which is given as text, and the key.

    Raises:
        ValueError: there are several kinds of keys, and the text names no model; or it is no key of it.
    """
    label, separator, rest = text.partition(":")
    by_label = {entry.label.lower(): entry for entry in places.entries()}
    entry = by_label.get(label.lower()) if separator else None
    if entry is None:
        entry, rest = _only_family(text), text
    field: Any = entry.key_field
    try:
        return entry, field.to_python(rest)
    except ValidationError as error:
        raise ValueError(f"{rest!r} is no {entry.key} of {entry.label}: {' '.join(error.messages)}") from error


def _only_family(text: str) -> registry.Entry:
    families = registry.families()
    if not families:
        raise ValueError(f"No model is sharded, so {text!r} is the key of none.")
    if len(families) > 1:
        examples = ", ".join(entries[0].label for entries in families.values())
        raise ValueError(
            f"{text!r} could be a key of several kinds of models. Write the label of one and a colon before it; there "
            f"are {examples}."
        )
    return next(iter(families.values()))[0]


def _isolated(wish: Wish, text: str, request: Request, notes: tuple[str, ...]) -> Proposal:
    entry, key = sharded_key(text)
    bucket = entry.bucket_of_key(key)
    owner, size = request.map.owner(bucket), request.sizes.get(bucket, NOTHING)
    found = key_in_bucket(owner, entry, key, size)
    plan = planning.isolate(request, bucket, found, target=wish.to, alone=not wish.shared)
    return Proposal(plan, tuple(neighbours(owner, entry, key, size)), notes)


def _shards(wish: Wish, bucket_map: BucketMap, unknown: Collection[str]) -> Iterator[Shard]:
    settings = conf.current()
    weights = {**settings.weights, **wish.weights}
    named = {DEFAULT_DB_ALIAS} & {*weights, *wish.named}
    aliases = {*settings.shards, *bucket_map.aliases, *named}
    for alias in sorted(aliases - set(unknown)):
        yield Shard(alias, weights.get(alias, 1.0), wish.capacity.get(alias), _role(alias, wish, weights))


def _role(alias: str, wish: Wish, weights: Collection[str]) -> Role:
    if alias in wish.drain:
        return Role.DRAINED
    if alias in wish.reserve:
        return Role.RESERVED
    if alias in (*wish.add, *wish.only, wish.to):
        return Role.OPEN
    # As in the first map, `default` gets buckets only if it has a weight; a shard that is no longer listed gets none.
    is_shard = alias in conf.current().shards or (alias == DEFAULT_DB_ALIAS and alias in weights)
    return Role.OPEN if is_shard and not wish.only else Role.CLOSED


def _unknown(bucket_map: BucketMap) -> tuple[str, ...]:
    """Return the shards that were declared since the cluster was initialised."""
    if bucket_map.epoch == 0:
        raise ValueError(
            "There is no shard to which buckets could move. Declare shards in DATABASES, and run "
            "`manage.py migrate_all` and `manage.py shards init`."
        )
    numbered = set(ShardNumber.objects.using(DEFAULT_DB_ALIAS).values_list("shard", flat=True))
    return tuple(alias for alias in conf.current().shards if alias not in numbered)


def _require_known(wish: Wish, unknown: Collection[str], bucket_map: BucketMap) -> None:
    known = places.databases(bucket_map)
    for alias, option in wish.named.items():
        if alias not in known:
            raise UnknownShard(
                f"{option} names {alias!r}, which is no shard of this cluster. Its databases are {', '.join(known)}. "
                f"Correct the name, or declare the shard in DATABASES.",
                alias=alias,
            )
        if alias in unknown:
            raise UnknownShard(
                f"{option} names {alias!r}, which is declared, and the cluster does not know it yet. Run "
                f"`manage.py migrate_all` and `manage.py shards init`: they make its tables, give it a number and its "
                f"identity, and leave the bucket map alone.",
                alias=alias,
            )


def _require_servers(aliases: Collection[str]) -> None:
    for alias in aliases:
        if alias in connections and not places.is_postgresql(alias):
            raise NotSupportedError(
                f"{alias!r} is {connections[alias].display_name}, and buckets move between PostgreSQL servers only. "
                f"Nothing can be planned here."
            )


def _notes(wish: Wish, unknown: Collection[str]) -> Iterator[str]:
    for alias in unknown:
        yield (
            f"{alias} is left out, because the cluster does not know it yet. Run `manage.py migrate_all` and "
            f"`manage.py shards init`."
        )
    settings = conf.current().weights
    changed = {alias: weight for alias, weight in wish.weights.items() if settings.get(alias, 1.0) != weight}
    if changed:
        given = ", ".join(f"{alias!r}: {weight:g}" for alias, weight in changed.items())
        yield f"Put these weights into SHARDING['WEIGHTS'] as well, or the next plan takes them back: {given}."

"""
The one seam: which compiler answers a query that is sent to `default`, or to a shard by name.

Django asks ``connection.ops.compiler(name)`` for a compiler at every execution. Queries of global models get Django's
own, untouched; queries of sharded models get one on the connection of the shard that owns their rows. Reference models
are read like global ones, and written everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.db.models import Count
from django.db.models.sql import Query

from sharding import cluster_map, locality, placing, reference_models, registry, routing, scopes
from sharding.backends import hook, inserts, lookup_reads, reference_writes, rerouting, updates
from sharding.backends.hook import FanOutRequest
from sharding.backends.native_compilers import (
    absent_class,
    empty_class,
    guarded_class,
    native_class,
    nested_class,
    owned,
    sending,
    unbounded,
    unbounded_class,
)
from sharding.backends.own_rows import own_rows
from sharding.errors import CannotMerge, GlobalJoin
from sharding.lookups import matching, states
from sharding.lookups.matching import Match
from sharding.registry import Entry
from sharding.routing import Buckets

__all__ = ["DoorCompiler", "ShardCompiler", "asks_every_shard", "native_class", "owned", "sending", "unbounded"]

SELECT = "SQLCompiler"
INSERT = "SQLInsertCompiler"
UPDATE = "SQLUpdateCompiler"
DELETE = "SQLDeleteCompiler"


class DoorCompiler:
    """Stands where a compiler class would: called with a query, it returns the compiler that answers it."""

    def __init__(self, name: str, native: Any) -> None:
        self.name = name
        self.native = native

    def __call__(self, query: Query, connection: Any, using: str | None, elide_empty: bool = True) -> Any:
        # RawQuery has no model: its SQL is sent as it stands.
        model = getattr(query, "model", None)
        entry = registry.entry(model)
        if connection.gathering is not None:
            return connection.gathering.compiler(self.native)(query, connection, using, elide_empty)
        if entry is None:
            bucket = locality.bucket_of_subqueries(query) if model is None and self._is_routed(query) else None
            if bucket is not None:
                return owned(self.name, query, cluster_map.current().owner(bucket), connection, elide_empty)
            native = self.native if model is None else guarded_class(self.native)
            if self.name in reference_writes.WRITES and reference_writes.go_everywhere(model):
                native = reference_writes.compiler(self.name, native)
            return native(query, connection, using, elide_empty)
        alias = routing.native_alias()
        if alias is not None:
            owner = cluster_map.connection_of(alias)
            query = own_rows(self.name, query, owner)
            return owner.ops.native_compiler(self.name)(query, owner, alias, elide_empty)
        if using is None:
            # A subquery, which is compiled for the connection of the statement around it.
            return nested_class(self.native)(query, connection, None, elide_empty)
        query = scopes.apply(query, entry)
        if self.name == INSERT:
            return inserts.compiler(self.native)(query, connection, using, elide_empty)
        return self._routed(query, connection, entry, elide_empty)

    def _is_routed(self, query: Query) -> bool:
        return hasattr(query, "where") and routing.native_alias() is None

    def _routed(self, query: Query, connection: Any, entry: Entry, elide_empty: bool) -> Any:
        buckets = routing.buckets_of(query)
        every = asks_every_shard(query)
        try:
            locality.check(query, entry, buckets)
        except (CannotMerge, GlobalJoin) as refusal:
            if not every or query.is_empty():
                raise
            owners = cluster_map.current()
            aliases = hook.restricted(query, owners.aliases)
            request = FanOutRequest(
                self.name, query, connection, aliases, None, elide_empty, refused=refusal, map=owners
            )
            again = partial(self._routed, query, connection, entry, elide_empty)
            return self._rerouted(hook.fan_out(request), again, connection, None, several=self.name in {UPDATE, DELETE})
        if buckets is None and not every:
            match = matching.match(query)
            if match is not None:
                unasked = unbounded_class(self.native)(query, connection, connection.alias, elide_empty)
                answer = partial(self._by_lookup, match, query, connection, entry, elide_empty)
                return lookup_reads.ByLookup(unasked, answer)
        return self._sent(query, connection, entry, buckets, elide_empty)

    def _by_lookup(self, match: Match, query: Query, connection: Any, entry: Entry, elide_empty: bool) -> Any:
        if not states.is_built(match.lookup.name):
            return self._sent(query, connection, entry, None, elide_empty, unbuilt=match.lookup.name)
        buckets = lookup_reads.buckets(match, connection)
        compiler = self._sent(query, connection, entry, buckets, elide_empty, single=match.single)
        return lookup_reads.patient(compiler) if match.single and buckets else compiler

    def _sent(
        self,
        query: Query,
        connection: Any,
        entry: Entry,
        buckets: Buckets,
        elide_empty: bool,
        *,
        single: bool = True,
        unbuilt: str | None = None,
    ) -> Any:
        """
        Return the compiler that sends a query to the owners of its buckets, and again when one has moved.

        Args:
            single: False when the query might have named several buckets, although it names one today.
            unbuilt: a lookup that could have told the buckets.
        """
        compiler = self._sent_once(query, connection, entry, buckets, elide_empty, single=single, unbuilt=unbuilt)
        again = partial(self._sent, query, connection, entry, buckets, elide_empty, single=single, unbuilt=unbuilt)
        # What a lookup keeps is written in the control database.
        several = self.name in {UPDATE, DELETE} and (not _is_single(buckets) or bool(entry.lookups))
        return self._rerouted(compiler, again, connection, buckets, several=several)

    def _rerouted(
        self, compiler: Any, again: Callable[[], Any], connection: Any, buckets: Buckets, *, several: bool
    ) -> Any:
        if not rerouting.is_possible(connection, single=_is_single(buckets)):
            return compiler
        if buckets and hook.asks_others(compiler.query, buckets):
            # Whose the bucket is, is no question to a shard that was named and is not its owner.
            buckets = None
        return rerouting.rerouted(compiler, again, connection, buckets, several=several)

    def _sent_once(
        self,
        query: Query,
        connection: Any,
        entry: Entry,
        buckets: Buckets,
        elide_empty: bool,
        *,
        single: bool,
        unbuilt: str | None,
    ) -> Any:
        if buckets is not None and not buckets:
            if _computes(query) or query.subquery:
                # What aggregates answer for no rows has a type that a database knows: any of them.
                return owned(self.name, query, cluster_map.current().aliases[0], connection, elide_empty)
            return empty_class(self.native)(query, connection, connection.alias, elide_empty)
        if self.name == UPDATE:
            query = updates.checked(query, entry, buckets)
        if single and buckets is not None and len(buckets) == 1:
            (bucket,) = buckets
            owner = cluster_map.current().owner(bucket)
            if asks_every_shard(query):
                aliases = hook.restricted(query, (owner,))
                return hook.on_one_shard(FanOutRequest(self.name, query, connection, aliases, buckets, elide_empty))
            return owned(self.name, query, owner, connection, elide_empty)
        owners = cluster_map.current()
        probe = False
        if buckets is None:
            probe = not asks_every_shard(query)
            # Django's own questions write nothing.
            if probe and (self.name in {UPDATE, DELETE} or not routing.is_probe()):
                refusing = unbounded_class(self.native)(query, connection, connection.alias, elide_empty)
                refusing.unbuilt = unbuilt
                return refusing
            aliases = owners.aliases
        else:
            aliases = owners.owners_of(buckets)
        aliases = hook.restricted(query, aliases)
        request = FanOutRequest(self.name, query, connection, aliases, buckets, elide_empty, probe, map=owners)
        return hook.fan_out(request)


def _is_single(buckets: Buckets) -> bool:
    return buckets is not None and len(buckets) == 1


class ShardCompiler:
    """Stands where a compiler class would, for a shard that is addressed by name."""

    def __init__(self, name: str, native: Any) -> None:
        self.name = name
        self.native = native

    def __call__(self, query: Query, connection: Any, using: str | None, elide_empty: bool = True) -> Any:
        # RawQuery has no model: its SQL is sent as it stands.
        model = getattr(query, "model", None)
        entry = registry.entry(model)
        if connection.gathering is not None:
            return connection.gathering.compiler(self.native)(query, connection, using, elide_empty)
        if entry is None:
            return self._unsharded(model, using)(query, connection, using, elide_empty)
        if routing.native_alias() is not None:
            return self.native(own_rows(self.name, query, connection), connection, using, elide_empty)
        if using is None:
            return nested_class(self.native)(query, connection, None, elide_empty)
        query = scopes.apply(query, entry)
        if self.name == INSERT:
            placing.refuse_foreign(entry, connection.alias, inserts.place(query, entry))
            if entry.lookups:
                door = connection.door
                return inserts.compiler(native_class(door, INSERT))(query, door, door.alias, elide_empty)
        elif self.name in {UPDATE, DELETE}:
            buckets = routing.buckets_of(query)
            if self.name == UPDATE:
                query = updates.checked(query, entry, buckets)
            if buckets:
                placing.refuse_foreign(entry, connection.alias, cluster_map.current().owners_of(buckets))
        return owned(self.name, query, connection.alias, connection.door, elide_empty)

    def _unsharded(self, model: Any, using: str | None) -> Any:
        """Return the compiler class for a query of a reference model, or of one that only `default` knows."""
        if self.name in reference_writes.WRITES and reference_writes.go_everywhere(model):
            return reference_writes.refusing(self.native)
        if using is not None or model is None or routing.native_alias() is not None:
            return self.native
        # As a subquery it may join no sharded rows, of which this shard has a part.
        return guarded_class(self.native) if reference_models.is_reference(model) else absent_class(self.native)


def _computes(query: Query) -> bool:
    """Return whether a query answers with one row of aggregates, of which one is more than a number of rows."""
    is_outer = hasattr(query, "inner_query")
    if not is_outer and (query.default_cols or query.select or query.group_by is not None):
        return False
    return any(each.contains_aggregate and type(each) is not Count for each in query.annotation_select.values())


def asks_every_shard(query: Query) -> bool:
    """Return whether fan_out() was written."""
    inner = getattr(query, "inner_query", None)
    return bool(getattr(query, "fan_out", None) or getattr(inner, "fan_out", None))

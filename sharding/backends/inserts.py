"""
INSERT: every object is checked and sent to the shard that owns its bucket; the returned rows keep the objects' order.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from django.db import transaction
from django.db.models.constants import OnConflict
from django.db.models.sql import Query

from sharding import cluster_map, locality, registry, scopes
from sharding.backends import lookup_writes, rerouting, updates
from sharding.backends.native_compilers import owned
from sharding.errors import ShardKeyChanged
from sharding.registry import Entry


def place(query: Any, entry: Entry) -> dict[str, list[int]]:
    """
    Check the objects of an INSERT and give them their bucket; return {owner: positions of its objects}.

    Raises:
        ShardKeyMissing, UnhashableKey: an object has no usable shard key.
        BucketMismatch: an object's id or foreign key belongs to another bucket.
        ShardKeyChanged: on a conflict, the stored row's key would be overwritten.
    """
    for field in query.update_fields or ():
        if field.attname in {entry.key_attname, registry.BUCKET_COLUMN}:
            raise ShardKeyChanged(
                f"bulk_create() of {entry.label} would overwrite {field.name} of stored rows, and a stored row's shard "
                f"key never changes. Leave {field.name} out of update_fields.",
                model=entry.label,
                field=field.name,
                old=None,
                new=None,
            )
    owner = cluster_map.current().owner
    groups: dict[str, list[int]] = {}
    for position, instance in enumerate(query.objs):
        scopes.complete(instance, entry)
        bucket = entry.bucket_of(instance)
        entry.verify(instance, bucket)
        for field in query.fields:
            value = instance.__dict__.get(field.attname)
            if hasattr(value, "resolve_expression"):
                locality.check_value(value, query, entry, bucket)
                if field.attname in entry.columns:
                    updates.verify(entry, field, value, frozenset({bucket}))
        # Fixtures skip pre_save(), and historical models have lost their base class: fill it here.
        setattr(instance, registry.BUCKET_COLUMN, bucket)
        groups.setdefault(owner(bucket), []).append(position)
    return groups


@cache
def compiler(native: Any) -> type[Any]:
    """Return the INSERT compiler of the door over Django's own."""

    class DoorInsertCompiler(native):  # type: ignore[misc]
        def execute_sql(self, returning_fields: Any = None) -> list[Any]:
            if not rerouting.is_possible(self.connection, single=True):
                return self._placed(returning_fields)
            # What a lookup keeps is written in the control database.
            several = len(self.query.objs) > 1 or bool(registry.get(self.query.model).lookups)
            rows: list[Any] = rerouting.patiently(
                self.connection, lambda: self._placed(returning_fields), several=several
            )
            return rows

        def _placed(self, returning_fields: Any) -> list[Any]:
            entry = registry.get(self.query.model)
            groups = place(self.query, entry)
            if entry.lookups and self.query.on_conflict is not None:
                lookup_writes.refuse_inexact(self.query, entry)
                if self.query.on_conflict == OnConflict.IGNORE:
                    self._send_free(groups)
                    return []
            return self._send_groups(groups, returning_fields)

        def _send_groups(self, groups: dict[str, list[int]], returning_fields: Any) -> list[Any]:
            if len(groups) == 1:
                (alias,) = groups
                return self._send(self.query, alias, returning_fields)
            # Django 6 opens no block of its own for a single batch.
            with transaction.atomic(using=self.connection.alias, savepoint=False):
                return self._send_parts(groups, returning_fields)

        def _send_free(self, groups: dict[str, list[int]]) -> None:
            """Insert the objects whose values are not taken, on any shard; of two with the same ones, the first."""
            with lookup_writes.one_transaction(self.connection):
                try:
                    with transaction.atomic(using=self.connection.alias):
                        self._send_groups(groups, None)
                except lookup_writes.ValueTaken:
                    # What one object takes decides about those that follow it, so they go one by one.
                    for each in self.query.objs if len(self.query.objs) > 1 else ():
                        part: Any = self.query.clone()
                        part.objs = [each]
                        type(self)(part, self.connection, self.using, self.elide_empty).execute_sql()

        def _send_parts(self, groups: dict[str, list[int]], returning_fields: Any) -> list[Any]:
            rows: list[Any] = [None] * len(self.query.objs)
            for alias in sorted(groups):
                part: Query = self.query.clone()
                part.objs = [self.query.objs[position] for position in groups[alias]]  # type: ignore[attr-defined]
                answers = self._send(part, alias, returning_fields)
                for position, row in zip(groups[alias], answers, strict=False):
                    rows[position] = row
            return rows if returning_fields else []

        def _send(self, query: Query, alias: str, returning_fields: Any) -> list[Any]:
            insert = owned("SQLInsertCompiler", query, alias, self.connection, self.elide_empty)
            answers: list[Any] = insert.execute_sql(returning_fields)
            return answers

    DoorInsertCompiler.__name__ = f"Door{native.__name__}"
    return DoorInsertCompiler

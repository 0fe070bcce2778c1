"""
delete() of sharded rows: a DELETE by id names the shard key of its rows as well.

Django's own names the ids alone. An id tells the bucket; the key sees to it that no row of another key goes with them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache, reduce
from itertools import groupby
from operator import attrgetter, or_
from typing import Any

from django.db import router, transaction
from django.db.models import Model, Q, QuerySet, signals, sql
from django.db.models.deletion import Collector
from django.db.models.sql.constants import GET_ITERATOR_CHUNK_SIZE

from sharding import cluster_map, conf, placing, registry, routing, scopes
from sharding.registry import Entry

Deleted = tuple[int, dict[str, int]]


def delete_instance(instance: Model, using: str | None = None, keep_parents: bool = False) -> Deleted:
    """Delete one row and what depends on it, as Model.delete() does."""
    name = instance._meta.object_name
    if not instance._is_pk_set():  # type: ignore[attr-defined]
        raise ValueError(
            f"{name} object can't be deleted because its {instance._meta.pk.attname} attribute is set to None."
        )
    collector = KeyedCollector(using or router.db_for_write(type(instance), instance=instance), origin=instance)
    collector.collect([instance], keep_parents=keep_parents)
    return collector.delete()


def delete_queryset(queryset: Any) -> Deleted:
    """Delete the rows of a queryset and what depends on them, as QuerySet.delete() does."""
    queryset._not_support_combined_queries("delete")
    if queryset.query.is_sliced:
        raise TypeError("Cannot use 'limit' or 'offset' with delete().")
    if queryset.query.distinct_fields:
        raise TypeError("Cannot call delete() after .distinct(*fields).")
    if queryset._fields is not None:
        raise TypeError("Cannot call delete() after .values() or .values_list()")
    rows = queryset._chain()
    rows._for_write = True
    rows.query.select_for_update = False
    rows.query.select_related = False
    rows.query.clear_ordering(force=True)
    _refuse_foreign(rows)
    collector = KeyedCollector(rows.db, origin=queryset)
    with routing.probe(allowed=False):
        collector.collect(rows)
    deleted = collector.delete()
    queryset._result_cache = None
    return deleted


def _refuse_foreign(rows: Any) -> None:
    """
    Check that a queryset on a shard names no rows of others: there it would find none, and delete none.

    Raises:
        WrongShard: it does.
    """
    entry = registry.entry(rows.model)
    if entry is None or rows.db not in conf.current().shards or routing.native_alias() is not None:
        return
    buckets = routing.buckets_of(scopes.apply(rows.query, entry))
    if buckets:
        placing.refuse_foreign(entry, rows.db, cluster_map.current().owners_of(buckets))


class KeyedCollector(Collector):
    """
    Django's collector, whose statements by id carry the shard key.

    ``delete()`` takes the steps of Django 5.2 to 6.1 in their order; only the DELETE by id is another one.
    """

    data: Any
    field_updates: Any

    def related_objects(self, related_model: Any, related_fields: Any, objs: Any) -> Any:
        found = super().related_objects(related_model, related_fields, objs)
        key = _key_column(related_model)
        if key is not None:
            # Of dependent rows Django loads the id alone.
            found.__class__ = _loading(type(found), key)
        return found

    def delete(self) -> Deleted:
        for model, instances in self.data.items():
            self.data[model] = sorted(instances, key=attrgetter("pk"))
        self.sort()
        alone = self._alone()
        if alone is not None:
            with transaction.mark_for_rollback_on_error(self.using):
                count = delete_rows(type(alone), [alone], self.using)
            self._forget_ids()
            return count, {type(alone)._meta.label: count}
        deleted: Counter[str] = Counter()
        with transaction.atomic(using=self.using, savepoint=False):
            for model, instance in self.instances_with_model():
                self._tell(signals.pre_delete, model, instance)
            for queryset in self.fast_deletes:
                count = queryset._raw_delete(using=self.using)
                # None for a queryset that can match nothing.
                deleted[queryset.model._meta.label] += count or 0
            self._update_fields()
            for model, instances in self.data.items():
                instances.reverse()
                deleted[model._meta.label] += delete_rows(model, instances, self.using)
                for instance in instances:
                    self._tell(signals.post_delete, model, instance)
        self._forget_ids()
        return sum(deleted.values()), {label: count for label, count in deleted.items() if count}

    def _alone(self) -> Model | None:
        """Return the row that is to be deleted, when there is only one and nothing depends on it."""
        rows = [instance for _, instance in self.instances_with_model()]
        return rows[0] if len(self.data) == len(rows) == 1 and self.can_fast_delete(rows[0]) else None

    def _tell(self, signal: Any, model: type[Model], instance: Model) -> None:
        if not model._meta.auto_created:
            signal.send(sender=model, instance=instance, using=self.using, origin=self.origin)

    def _update_fields(self) -> None:
        """SET_NULL and the like: for rows that were not read, by their foreign key; for the others, by id."""
        for (field, value), found in self.field_updates.items():
            unread = [each for each in found if isinstance(each, QuerySet) and each._result_cache is None]
            if unread:
                reduce(or_, unread).update(**{field.name: value})
            read = [row for each in found if not any(each is one for one in unread) for row in each]
            if read:
                query: Any = sql.UpdateQuery(type(read[0]))
                query.update_batch(list({row.pk for row in read}), {field.name: value}, self.using)

    def _forget_ids(self) -> None:
        for model, instance in self.instances_with_model():
            setattr(instance, model._meta.pk.attname, None)


def delete_rows(model: type[Model], instances: Iterable[Model], using: str) -> int:
    """Delete the rows of instances of one model, by their ids and keys, and return how many there were."""
    if _key_column(model) is None:
        return sql.DeleteQuery(model).delete_batch([each.pk for each in instances], using)
    return sum(_delete_batch(model, condition, using) for condition in batches(model, instances))


def batches(model: type[Model], instances: Iterable[Model]) -> Iterator[Q]:
    """Yield conditions that name the rows of instances by their keys and ids, each for as many as a statement takes."""
    key = _key_column(model)
    # Rows of one key stand together, so that few keys share a statement.
    by_key: dict[Any, list[Any]] = {}
    for each in instances:
        by_key.setdefault(None if key is None else stored_key(each, key), []).append(each.pk)
    rows = [(value, pk) for value, ids in by_key.items() for pk in ids]
    for start in range(0, len(rows), GET_ITERATOR_CHUNK_SIZE):
        yield reduce(or_, _conditions(model, key or "", rows[start : start + GET_ITERATOR_CHUNK_SIZE]))


def stored_key(instance: Any, attname: str) -> Any:
    """Return the shard key under which the row is stored, or None when it was never loaded."""
    known = getattr(instance._state, "shard_key", None)
    return instance.__dict__.get(attname) if known is None else known


def _delete_batch(model: type[Model], condition: Q, using: str) -> int:
    query: Any = sql.DeleteQuery(model)
    query.add_q(condition)
    deleted: int = query.do_query(model._meta.db_table, query.where, using=using)
    return deleted


def _conditions(model: type[Model], key: str, rows: list[tuple[Any, Any]]) -> Iterator[Q]:
    """Yield a condition for each key: that and the ids of its rows, for an id may be stored under another key."""
    for value, group in groupby(rows, key=lambda row: row[0]):
        ids = (f"{model._meta.pk.attname}__in", [pk for _, pk in group])
        yield Q(ids) if value is None else Q((key, value), ids)


def _key_column(model: type[Model]) -> str | None:
    """Return the shard key's attribute, where the model's table holds it beside the id."""
    entry: Entry | None = registry.entry(model)
    if entry is None:
        return None
    # A child of multi-table inheritance has it in its parent's table.
    own = {field.attname for field in model._meta.concrete_model._meta.local_concrete_fields}  # type: ignore[union-attr]
    named = {field.attname for field in model._meta.pk_fields}
    return entry.key_attname if entry.key_attname in own - named else None


@cache
def _loading(queryset: type[QuerySet[Any]], attname: str) -> type[QuerySet[Any]]:
    class Loading(queryset):  # type: ignore[misc, valid-type]
        """A queryset that loads the shard key, whatever else it loads."""

        def only(self, *fields: Any) -> Any:
            return super().only(*fields, attname) if fields else super().only()

    Loading.__name__ = queryset.__name__
    return Loading

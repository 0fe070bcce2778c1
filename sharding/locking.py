"""
Locking rows of several databases in one order, the same for every block, so that none waits for another in a circle.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db.models import Model, QuerySet
from django.db.transaction import TransactionManagementError

from sharding import registry

#: What is locked by one statement: how many parents a model inherits from with tables of their own, its label, and a
#: bucket, or WHOLE for a model that has none.
Place = tuple[int, str, int]

WHOLE = -1


def lock_in_order(*what: Model | Iterable[Model]) -> list[Any]:
    """
    Lock rows of any models until the open atomic block ends, and return them as they are now, in the order given.

    The locks are taken by model, bucket and primary key, whatever the order given and wherever the buckets live, those
    of parents (multi-table inheritance) before those of their children. Two blocks that take all their locks by one
    call each never wait for each other in a circle.

    Args:
        what: instances, and querysets or other iterables of instances. A row of a queryset that was deleted, or does
            not match any more when its lock is granted, is left out.

    Raises:
        TransactionManagementError: no atomic block is open.
        DoesNotExist: the row of an instance was deleted.
        TypeError, ValueError: something else than a stored instance was given.
    """
    door: Any = connections[DEFAULT_DB_ALIAS]
    if not door.in_atomic_block:
        raise TransactionManagementError(
            "lock_in_order() was called outside of an atomic block, where a lock ends with its statement. "
            "Open transaction.atomic() around it and around what the locks are for."
        )
    given = [(each, _instances(each)) for each in what]
    locked = _lock(instance for _, instances in given for instance in instances)
    found: list[Any] = []
    for source, instances in given:
        if isinstance(source, QuerySet):
            found += _still_matching(source, instances)
        else:
            found += [_fresh(instance, locked) for instance in instances]
    return found


def _instances(source: Any) -> list[Model]:
    # Anything that can be gone through is taken for instances; what cannot, for one of them.
    if isinstance(source, QuerySet):
        # Its own select_for_update() would lock in its own order.
        source = _unlocked(source)
    instances = list(source) if isinstance(source, Iterable) else [source]
    for each in instances:
        if not isinstance(each, Model):
            raise TypeError(f"lock_in_order() takes instances of models and querysets of them, not {each!r}.")
        if each.pk is None or each._state.adding:
            raise ValueError(f"This {each._meta.label} is not stored, so it cannot be locked. Save it first.")
    return instances


def _unlocked(source: QuerySet[Any]) -> QuerySet[Any]:
    if not source.query.select_for_update:
        return source
    found = source.all()
    found.query.select_for_update = False
    return found


def _place(instance: Model) -> Place:
    entry = registry.entry(type(instance))
    options = _concrete(instance)._meta
    return len(options.all_parents), options.label_lower, WHOLE if entry is None else entry.bucket_of(instance)


def _with_parents(instance: Model) -> Iterator[Model]:
    """Yield an instance, and before it those of its parents' rows, which its own lock would take along."""
    for parent in _concrete(instance)._meta.all_parents:
        names = [field.attname for field in parent._meta.concrete_fields]
        yield parent.from_db(instance._state.db, names, [getattr(instance, name) for name in names])
    yield instance


def _concrete(instance: Model) -> type[Model]:
    return instance._meta.concrete_model or type(instance)


def _lock(instances: Iterable[Model]) -> dict[tuple[Place, Any], Model]:
    """Lock the rows, and return them by place and primary key."""
    places: dict[Place, list[Model]] = {}
    for instance in instances:
        for each in _with_parents(instance):
            places.setdefault(_place(each), []).append(each)
    # A bucket at a time: an order by shard would be another one when a bucket has moved.
    return {(place, row.pk): row for place in sorted(places) for row in _locked(places[place])}


def _locked(instances: list[Model]) -> Iterator[Model]:
    model = _concrete(instances[0])
    rows = model._base_manager.using(_alias(model)).filter(pk__in=[each.pk for each in instances])
    entry = registry.entry(model)
    if entry is not None:
        rows = rows.filter(**{f"{entry.key_attname}__in": [getattr(each, entry.key_attname) for each in instances]})
    # PostgreSQL locks in the order of ORDER BY.
    yield from rows.order_by("pk").select_for_update()


def _alias(model: type[Model]) -> str:
    return DEFAULT_DB_ALIAS if registry.entry(model) is not None else router.db_for_write(model)


def _still_matching(source: QuerySet[Any], instances: list[Model]) -> list[Any]:
    """Read the rows of a queryset again, which nobody can change any more."""
    again = _unlocked(source).all()
    # Of a slice the same rows are wanted, and no others.
    again.query.clear_limits()
    rows = {row.pk: row for row in again.filter(pk__in=[each.pk for each in instances])} if instances else {}
    return [rows[each.pk] for each in instances if each.pk in rows]


def _fresh(instance: Model, locked: dict[tuple[Place, Any], Model]) -> Model:
    row = locked.get((_place(instance), instance.pk))
    if row is None:
        model: Any = type(instance)
        raise model.DoesNotExist(f"{instance._meta.label} {instance.pk!r} was deleted before it was locked.")
    if type(row) is type(instance):
        return row
    fields = instance._meta.concrete_fields
    # The instance of a proxy model.
    names, values = [each.attname for each in fields], [getattr(row, each.attname) for each in fields]
    return type(instance).from_db(row._state.db, names, values)

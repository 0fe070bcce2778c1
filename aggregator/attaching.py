"""
The related objects of rows, fetched by their keys: select_related() for what lives in other databases.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any, NoReturn, TypeVar

from django.core.exceptions import FieldDoesNotExist, FieldError
from django.db.models import ForeignKey, Manager, Model, QuerySet
from django.db.models.query import ModelIterable

from aggregator.instances import queryset_of, value_of
from aggregator.made_classes import Made, made
from aggregator.partial_answers import partial_class, whole_class

M = TypeVar("M", bound=Model)

#: How many keys one query names at most.
KEYS = 1000


def attach(source: QuerySet[M, Any] | Manager[M], *paths: str) -> QuerySet[M, Any]:
    """
    Return a queryset whose rows come with the objects that their foreign keys refer to, wherever those live.

    A path names a foreign key, or goes on from its target: "customer__region". Each relation costs one query for
    every thousand different keys; iterator() fetches them for each of its chunks. A NULL key gives None. So does a key
    without a row, unless the foreign key is not nullable: then its attribute raises DoesNotExist. Rows with equal keys
    share one object.

    Raises:
        TypeError: ``source`` is no queryset of instances and no manager, or there is no path.
        FieldError: a path names something else than foreign keys; while iterating: a key was not loaded.
    """
    queryset = queryset_of(source, "attach")
    if not paths:
        raise TypeError('attach() needs the names of foreign keys, such as attach(queryset, "customer__region").')
    for path in paths:
        _check(queryset.model, path)
    whole = whole_class(queryset)
    if not issubclass(whole, Attaching):
        attaching = _attaching(whole)
        queryset.__class__ = attaching if type(queryset) is whole else partial_class(attaching)
        queryset._rows_class = queryset._iterable_class
        queryset._iterable_class = AttachingIterable
    queryset._attached = (*queryset._attached, *paths)
    return queryset  # type: ignore[no-any-return]


class Attaching(Made):
    """Mixin of a queryset's class: it knows what to attach, and hands it on to its clones."""

    _attached: tuple[str, ...] = ()
    #: The class that its instances' iterable would have without attach().
    _rows_class: Any

    def _clone(self) -> Any:
        clone: Any = super()._clone()  # type: ignore[misc]
        clone._attached = self._attached
        clone._rows_class = self._rows_class
        return clone

    def _values(self, *fields: Any, **expressions: Any) -> NoReturn:
        raise TypeError(
            "attach() gives instances their related objects, and values() and values_list() make no instances. "
            "Call them on the queryset that attach() was given."
        )


class AttachingIterable(ModelIterable):  # type: ignore[type-arg]
    """The queryset's own instances, in batches that have been given their related objects."""

    def __iter__(self) -> Iterator[Any]:
        iterable: Any = self
        queryset, chunked = iterable.queryset, iterable.chunked_fetch
        rows = iter(queryset._rows_class(queryset, chunked_fetch=chunked, chunk_size=iterable.chunk_size))
        # What is not fetched in chunks is held in memory anyway, and shares its queries.
        while batch := list(islice(rows, iterable.chunk_size if chunked else None)):
            for path in queryset._attached:
                _attach(batch, path)
            yield from batch


@cache
def _attaching(native: Any) -> Any:
    return made(_attaching, "Attaching", Attaching, native)


def _check(model: type[Model], path: str) -> None:
    for name in path.split("__"):
        model = _foreign_key(model, name, path).remote_field.model


def _foreign_key(model: type[Model], name: str, path: str) -> Any:
    where = f"attach() cannot follow {path!r}: {model._meta.label} has"
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        raise FieldError(f"{where} no field {name!r}.") from None
    # "customer_id" finds the field, too.
    if not isinstance(field, ForeignKey) or field.name != name:
        raise FieldError(f"{where} no foreign key {name!r}. For other relations there is prefetch_related().")
    return field


def _attach(instances: Sequence[Model], path: str) -> None:
    """Give the instances of one model what a path leads to, one relation after the other."""
    for name in path.split("__"):
        if not instances:
            return
        field: Any = type(instances[0])._meta.get_field(name)
        _attach_relation([each for each in instances if not field.is_cached(each)], field)
        targets = (field.get_cached_value(each, default=None) for each in instances)
        instances = list({id(target): target for target in targets if target is not None}.values())


def _attach_relation(instances: Sequence[Model], field: Any) -> None:
    keys = [value_of(each, field, "attach") for each in instances]
    wanted = list(dict.fromkeys(key for key in keys if key is not None))
    found: dict[Any, Model] = {}
    for start in range(0, len(wanted), KEYS):
        found.update(_targets(instances[0], field, wanted[start : start + KEYS]))
    for instance, key in zip(instances, keys, strict=True):
        field.set_cached_value(instance, found.get(key))


def _targets(instance: Model, field: Any, keys: list[Any]) -> Iterator[tuple[Any, Model]]:
    """Yield the rows that keys refer to; the database is that which Django would ask for the instance's one."""
    name = field.target_field.attname
    descriptor = getattr(type(instance), field.name)
    for target in descriptor.get_queryset(instance=instance).filter(**{f"{name}__in": keys}).order_by():
        yield getattr(target, name), target

"""
ShardedModel, from which the application's sharded models inherit; and the tables of the toolkit itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Self

from django.core.exceptions import ValidationError
from django.db import DEFAULT_DB_ALIAS, models
from django.db.models.signals import class_prepared

from sharding import cluster_map, conf, deletion, registry, routing, scopes, validation
from sharding.control import (
    BucketOwner,
    Cluster,
    Decision,
    LookupState,
    ReferenceCopies,
    ShardIdentity,
    ShardNumber,
)
from sharding.dependents import ShardedModelBase
from sharding.errors import ShardKeyChanged, WrongShard
from sharding.fields import BucketField
from sharding.lookups import tables
from sharding.lookups.declaration import LookupIndex
from sharding.managers import ShardedManager, door
from sharding.move_tables import Attempt, CleanUp, CopyProgress, Dirty, Fence, Move
from sharding.reference_base import ReferenceModel

__all__ = [
    "Attempt",
    "BucketOwner",
    "CleanUp",
    "Cluster",
    "CopyProgress",
    "Decision",
    "Dirty",
    "Fence",
    "LookupIndex",
    "LookupState",
    "Move",
    "ReferenceCopies",
    "ReferenceModel",
    "ShardIdentity",
    "ShardNumber",
    "ShardedModel",
]


class ShardedModel(models.Model, metaclass=ShardedModelBase):
    """
    A model whose rows live on the shard that owns their bucket, and whose bucket is computed from the shard key.

    Set ``shard_key`` to the name of a field, of a foreign key, or of the primary key itself::

        class Order(ShardedModel):
            shard_key = "tenant_id"
            id = ShardUUIDField(primary_key=True)
            tenant_id = models.IntegerField()
    """

    #: Name of the field whose value decides where a row lives.
    shard_key: ClassVar[str]
    #: Second keys: the rows of one of their values are found without the shard key.
    lookups: ClassVar[Sequence[LookupIndex]] = ()

    bucket = BucketField()

    objects = ShardedManager()

    class Meta:
        abstract = True

    @classmethod
    def from_db(cls, db: str | None, field_names: Any, values: Any, **kwargs: Any) -> Self:
        # Django 6.1 adds fetch_mode.
        instance = super().from_db(db, field_names, values, **kwargs)
        if db in conf.current().shards:
            # A row of a shard is a row of the cluster: what it does next goes through the door.
            instance._state.db = DEFAULT_DB_ALIAS
        instance._remember_key()
        return instance

    def _remember_key(self) -> None:
        entry = registry.get(type(self))
        # A deferred key stays unknown: reading it would be a query.
        self._state.shard_key = self.__dict__.get(entry.key_attname)  # type: ignore[attr-defined]

    def refresh_from_db(self, using: str | None = None, fields: Any = None, *args: Any, **kwargs: Any) -> None:
        super().refresh_from_db(using, fields, *args, **kwargs)
        entry = registry.get(type(self))
        if fields is None or {entry.key, entry.key_attname} & set(fields):
            self._remember_key()

    def save_base(self, *args: Any, **kwargs: Any) -> None:
        entry = registry.get(type(self))
        if routing.native_alias() is None:
            scopes.complete(self, entry)
            self._refuse_changed_key(entry)
            kwargs["using"] = self._verified_alias(entry, kwargs.get("using"))
        super().save_base(*args, **kwargs)
        self._remember_key()

    save_base.alters_data = True  # type: ignore[attr-defined]

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        entry = registry.get(type(self))
        # Inside another key's scope nothing would be found, and so nothing be deleted.
        scopes.complete(self, entry)
        key = deletion.stored_key(self, entry.key_attname)
        if key is not None and self._is_pk_set() and routing.native_alias() is None:  # type: ignore[attr-defined]
            self._verify_id(entry, entry.bucket_of_key(key))
        with door().committing_one_by_one():
            return deletion.delete_instance(self, using, keep_parents)

    delete.alters_data = True  # type: ignore[attr-defined]

    def _verified_alias(self, entry: registry.Entry, using: str | None) -> str | None:
        """A write that is addressed to the row's own shard goes through the door; to another one, it is refused."""
        if using is None or using not in conf.current().shards:
            return using
        owner = cluster_map.current().owner(entry.bucket_of(self)) if self._has_place(entry) else using
        if owner != using:
            raise WrongShard(
                f"This {self._meta.object_name} with {entry.key}={getattr(self, entry.key_attname)!r} belongs to "
                f"{owner!r}, not to {using!r}. Leave out using={using!r}, and it is sent to its owner.",
                model=entry.label,
                alias=using,
                expected=owner,
            )
        return DEFAULT_DB_ALIAS

    def _has_place(self, entry: registry.Entry) -> bool:
        # A row that is its own shard key gets its place with its id.
        return getattr(self, entry.key_attname) is not None or not entry.key_field.primary_key

    def _refuse_changed_key(self, entry: registry.Entry) -> None:
        old = getattr(self._state, "shard_key", None)
        new = self.__dict__.get(entry.key_attname, old)
        # Without an id it is saved as a new row: the idiom for copying one.
        if self._state.adding or new == old or not self._is_pk_set():  # type: ignore[attr-defined]
            return
        if old is None:
            self._verify_id(entry, entry.bucket_of(self))
            return
        if new is not None and entry.prepare_key(new) == entry.prepare_key(old):
            return
        raise ShardKeyChanged(
            f"The {entry.key} of this {self._meta.object_name} was {old!r} and is now {new!r}, and a stored row's "
            f"shard key never changes. Create the row again under the new key, and delete the old one.",
            model=entry.label,
            field=entry.key,
            old=old,
            new=new,
        )

    def _verify_id(self, entry: registry.Entry, bucket: int) -> None:
        """The key given may not be the stored one: the id tells at least its bucket."""
        for field in self._meta.pk_fields:
            if field.attname in entry.columns and field.attname != entry.key_attname:
                entry.verify_value(field.attname, getattr(self, field.attname), bucket)

    def _do_update(self, base_qs: Any, *args: Any, **kwargs: Any) -> Any:
        # Django's UPDATE names the id alone; the key makes it one shard's, and never another tenant's row.
        entry = registry.get(type(self))
        named = any(field.attname == entry.key_attname for field in self._meta.pk_fields)
        if not named and self.__dict__.get(entry.key_attname) is not None:
            base_qs = base_qs.filter(**{entry.key_attname: getattr(self, entry.key_attname)})
        return super()._do_update(base_qs, *args, **kwargs)

    def clean_fields(self, exclude: Any = None) -> None:
        entry = registry.get(type(self))
        if self.__dict__.get(entry.key_attname) is None:
            scopes.complete(self, entry)
        with routing.probe():
            super().clean_fields(exclude)
        if errors := validation.errors_of_instance(entry, self, exclude or ()):
            raise ValidationError(errors)

    def validate_unique(self, exclude: Any = None) -> None:
        with routing.probe():
            super().validate_unique(exclude)

    def _get_unique_checks(self, exclude: Any = None, include_meta_constraints: bool = False) -> Any:
        entry = registry.get(type(self))
        excluded = validation.left_out(entry, self, exclude)
        unique, dates = super()._get_unique_checks(excluded, include_meta_constraints)  # type: ignore[misc]
        asked = {fields for model, fields in unique if registry.entry(model) is entry}
        for lookup in entry.lookups:
            if lookup.unique and not excluded.intersection(lookup.attnames) and lookup.attnames not in asked:
                unique.append((type(self), lookup.attnames))
        return unique, dates

    def _perform_unique_checks(self, unique_checks: Any) -> Any:
        # A lookup is unique over all keys, whatever key the scope names.
        entry = registry.get(type(self))
        unique = {frozenset(lookup.attnames) for lookup in entry.lookups if lookup.unique}
        everywhere = [check for check in unique_checks if frozenset(check[1]) in unique]
        errors = super()._perform_unique_checks(  # type: ignore[misc]
            [check for check in unique_checks if check not in everywhere]
        )
        with scopes.outside(entry):
            found = super()._perform_unique_checks(everywhere)  # type: ignore[misc]
        for field, messages in found.items():
            errors.setdefault(field, []).extend(messages)
        return errors

    def validate_constraints(self, exclude: Any = None) -> None:
        with routing.probe():
            super().validate_constraints(validation.left_out(registry.get(type(self)), self, exclude))


def _prepare(sender: type[models.Model], **kwargs: Any) -> None:
    """Register a concrete subclass, and give its table the index that moves and audits need."""
    if not issubclass(sender, ShardedModel) or sender._meta.abstract:
        return
    if sender._meta.proxy or sender._meta.concrete_model is not sender:
        return
    registry.register(sender)
    _index_bucket(sender)
    tables.prepare(sender)


def _index_bucket(model: type[models.Model]) -> None:
    options: Any = model._meta
    if options.pk is None or BucketField not in {type(each) for each in options.local_fields}:
        return
    names = [registry.BUCKET_COLUMN, *(field.name for field in options.pk_fields)]
    if any(list(each.fields) == names for each in options.indexes):
        return
    index = models.Index(fields=names)
    index.set_name_with_model(model)
    options.indexes = [*options.indexes, index]
    # What migrations read.
    options.original_attrs["indexes"] = options.indexes


class_prepared.connect(_prepare)

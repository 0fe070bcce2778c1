"""
What the toolkit knows of one sharded model: its key, and which of its columns name a bucket.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

from django.db.models import Field, ForeignKey, Model
from django.utils.functional import Promise

from sharding import conf, hashing
from sharding.errors import BucketMismatch, ShardKeyMissing, UnhashableKey

#: Gives the bucket of a prepared column value, or None for a value that no stored row can have.
BucketOf = Callable[[Any], int | None]

BUCKET_COLUMN = "bucket"
#: Attribute of a model class: what lookups.tables has made of its ``lookups``.
LOOKUP_TABLES = "_lookup_tables"


@dataclass(frozen=True, slots=True, eq=False)
class Entry:
    """What the toolkit knows of one sharded model."""

    label: str
    model: type[Model]
    #: Name of the shard key field, and its attribute and column holder ("tenant", "tenant_id").
    key: str
    key_attname: str
    key_field: Field[Any, Any]
    #: Every column whose value alone names the bucket, by attname: the key, the id, co-located foreign keys.
    columns: dict[str, BucketOf]
    #: Foreign keys to sharded models whose value names the target's bucket, other than the key itself.
    references: dict[str, Field[Any, Any]]
    #: Models of one family have the same bucket for the same key.
    family: str
    #: Its second keys, each a lookups.declaration.Lookup.
    lookups: tuple[Any, ...] = ()

    @property
    def table(self) -> str:
        return self.model._meta.db_table

    def rule(self, attname: str) -> str | None:
        """
        Return how a column names the bucket, "hash" or "id", or None when it does not.

        Two columns with the same rule and the same value name the same bucket.
        """
        function = self.columns.get(attname)
        return None if function is None else "hash" if function is _hashed else "id"

    def bucket_of_key(self, value: Any) -> int:
        """
        Return the bucket of a shard key as the application writes it ("42" and 42 agree on an integer field).

        Raises:
            ShardKeyMissing: the key is None.
            UnhashableKey: the key is an expression, of a type that cannot be a key, or not what the column would keep.
        """
        prepared = self.prepare_key(value)
        bucket = self.columns[self.key_attname](prepared)
        if bucket is None:
            raise UnhashableKey(
                f"{self.label}.{self.key}={value!r} names a bucket that this cluster does not have. "
                f"Use an id that was made by this cluster.",
                key=value,
            )
        return bucket

    def prepare_key(self, value: Any) -> Any:
        """Return the key as the database driver would be given it, by the field's own conversion."""
        if value is None:
            raise ShardKeyMissing(
                f"This {self.model._meta.object_name} has no {self.key}, so its shard is unknown. "
                f"Set {self.key} before saving.",
                model=self.label,
                field=self.key,
            )
        if hasattr(value, "resolve_expression"):
            raise UnhashableKey(
                f"{self.label}.{self.key}={value!r} is an expression, and a shard key must be a plain value.",
                key=value,
            )
        if isinstance(value, (bool, float, Promise, list, tuple, dict, set, frozenset)):
            # Integer fields would turn True into 1 and 1.5 into 1, text fields [1] into "[1]": somebody else's shard.
            hashing.encode(value)
        prepared = self.key_field.get_prep_value(value)
        places = getattr(_target(self.key_field), "decimal_places", None)
        # The encoding has no zeros at the end.
        if places is not None and len(hashing.encode(prepared).partition(b".")[2]) > places:
            raise UnhashableKey(
                f"{self.label}.{self.key}={value!r} has more than the {places} decimal places that the column keeps, "
                f"so that another key would be stored. Round it first.",
                key=value,
            )
        return prepared

    def bucket_of(self, instance: Model) -> int:
        """Return the bucket where the row of ``instance`` belongs, by its shard key."""
        return self.bucket_of_key(getattr(instance, self.key_attname))

    def verify(self, instance: Model, bucket: int) -> None:
        """
        Check that the id and the foreign keys of ``instance`` belong to ``bucket``.

        Raises:
            BucketMismatch: one of them was made for another bucket.
        """
        for attname, bucket_of in self.columns.items():
            if attname == self.key_attname:
                continue
            # A deferred value stays unread: it is the stored one.
            value = instance.__dict__.get(attname)
            if value is None or hasattr(value, "resolve_expression"):
                continue
            self.verify_value(attname, value, bucket, bucket_of)

    def verify_value(self, attname: str, value: Any, bucket: int, bucket_of: BucketOf | None = None) -> None:
        """Check that ``value`` of the column ``attname`` belongs to ``bucket``, or raise BucketMismatch."""
        field: Any = self.model._meta.get_field(attname)
        found = (bucket_of or self.columns[attname])(field.get_prep_value(value))
        if found == bucket:
            return
        what = "names a row of" if field.is_relation else "was made for"
        remedy = (
            "Rows that refer to each other must have the same shard key."
            if field.is_relation
            else "Leave the id empty, and it is made for the row's bucket."
        )
        raise BucketMismatch(
            f"{self.label}.{field.name}={value!r} {what} bucket {found}, but the row belongs to bucket {bucket} "
            f"by its {self.key}. {remedy}",
            model=self.label,
            field=field.name,
            value=value,
            expected=bucket,
            found=found,
        )


def entry_of(model: type[Model], sharded: Container[str]) -> Entry:
    """Return the entry of a model; ``sharded`` holds the labels of all sharded models, in lower case."""
    opts = model._meta
    key: Any = opts.get_field(model.shard_key)  # type: ignore[attr-defined]
    columns: dict[str, BucketOf] = {key.attname: _key_function(key)}
    references: dict[str, Field[Any, Any]] = {}
    for field in opts.concrete_fields:
        if field.attname in columns:
            continue
        function = _embedded(field) if field.primary_key else _reference_function(field, sharded)
        if function is not None:
            columns[field.attname] = function
            if field.is_relation:
                references[field.attname] = field
    return Entry(
        label=opts.label,
        model=model,
        key=key.name,
        key_attname=key.attname,
        key_field=key,
        columns=columns,
        references=references,
        family=_family(model, key, sharded),
        lookups=tuple(model.__dict__.get(LOOKUP_TABLES, ())),
    )


def _target(field: Any) -> Any:
    """Return the plain field at the end of a chain of foreign keys (a child's parent link, for one)."""
    while isinstance(field, ForeignKey):
        field = field.target_field
    return field


def _embedded(field: Any) -> BucketOf | None:
    """Return the function that reads the bucket out of a value, for fields that hold one."""
    reader = getattr(_target(field), "bucket_in", None)
    if reader is None:
        return None

    def embedded(value: Any) -> int | None:
        bucket: int = reader(value)
        return bucket if bucket < conf.current().buckets else None

    return embedded


def _hashed(value: Any) -> int | None:
    settings = conf.current()
    return hashing.bucket_of(value, settings.buckets, settings.hash)


def _key_function(key: Any) -> BucketOf:
    return _embedded(key) or _hashed


def _reference_function(field: Any, sharded: Container[str]) -> BucketOf | None:
    """Return how the value of a foreign key to a sharded model names the bucket of its target."""
    if not isinstance(field, ForeignKey):
        return None
    target = field.target_field
    owner: Any = target.model._meta.concrete_model
    if owner is None or owner._meta.label_lower not in sharded:
        return None
    embedded = _embedded(field)
    if embedded is not None:
        return embedded
    return _hashed if target.name == owner.shard_key else None


def _family(model: type[Model], key: Any, sharded: Container[str], seen: frozenset[str] = frozenset()) -> str:
    if isinstance(key, ForeignKey):
        owner: Any = key.target_field.model._meta.concrete_model
        label = owner._meta.label_lower
        if label in sharded and label not in seen:
            return _family(owner, owner._meta.get_field(owner.shard_key), sharded, seen | {label})
        return str(owner._meta.label)
    return model._meta.label if key.primary_key else str(key.attname)

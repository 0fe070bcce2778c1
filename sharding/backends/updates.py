"""
UPDATE: no statement may change a shard key, or point a row to another bucket's rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.db.models import Case, Model
from django.db.models.expressions import Col, Value
from django.db.models.functions import Cast
from django.db.models.lookups import Exact
from django.db.models.sql import Query

from sharding import registry, routing
from sharding.errors import BucketMismatch, ShardKeyChanged
from sharding.registry import Entry
from sharding.routing import Buckets


def checked(query: Any, entry: Entry, buckets: Buckets) -> Query:
    """
    Return the UPDATE with its bucket column filled in.

    Raises:
        ShardKeyChanged: it sets the shard key or the bucket to something else than its WHERE clause names.
        BucketMismatch: it sets an id or a foreign key that belongs to another bucket.
    """
    values: list[Any] = []
    for field, model, value in query.values:
        if field.attname == entry.key_attname:
            _verify_key(query, entry, value)
        elif field.attname == registry.BUCKET_COLUMN:
            value = _bucket(entry, buckets, value)
        elif field.attname in entry.columns:
            verify(entry, field, value, buckets)
        values.append((field, model, value))
    if values == query.values:
        return query  # type: ignore[no-any-return]
    filled: Any = query.clone()
    filled.values = values
    return filled  # type: ignore[no-any-return]


def _verify_key(query: Query, entry: Entry, value: Any) -> None:
    """save() writes every column: the key, too, with the value that its WHERE clause names."""
    plain = _plain(entry.key_field, value)
    if plain is not None and not hasattr(plain, "resolve_expression"):
        prepared = entry.prepare_key(plain)
        if any(_names(child, entry, prepared) for child in routing.anded(query.where)):
            return
    raise ShardKeyChanged(
        f"This update would set {entry.label}.{entry.key} to {value!r}, and a stored row's shard key never changes. "
        f"Create the row again under the new key, and delete the old one.",
        model=entry.label,
        field=entry.key,
        old=None,
        new=value,
    )


def _names(node: Any, entry: Entry, prepared: Any) -> bool:
    return (
        isinstance(node, Exact)
        and isinstance(node.lhs, Col)
        and node.lhs.target.attname == entry.key_attname
        and registry.entry(node.lhs.target.model) is entry
        and not hasattr(node.rhs, "resolve_expression")
        and bool(node.rhs == prepared)
    )


def _bucket(entry: Entry, buckets: Buckets, value: Any) -> int:
    # The value is None for a fixture that leaves the bucket out.
    if buckets is not None and len(buckets) == 1:
        (bucket,) = buckets
        if value is None or value == bucket:
            return bucket
    raise ShardKeyChanged(
        f"This update would set {entry.label}.{registry.BUCKET_COLUMN} to {value!r}, and the bucket is computed from "
        f"{entry.key}. Leave it out.",
        model=entry.label,
        field=registry.BUCKET_COLUMN,
        old=None,
        new=value,
    )


def verify(entry: Entry, field: Any, value: Any, buckets: Buckets) -> None:
    """
    Check what rows of some buckets are given in a column that names a bucket.

    Raises:
        BucketMismatch: it belongs to another bucket than one of the rows may, or the database computes it.
    """
    for literal, rows in _literals(entry, field, value, buckets):
        _verify_literal(entry, field, literal, rows)


def _literals(entry: Entry, field: Any, value: Any, buckets: Buckets) -> Iterator[tuple[Any, Buckets]]:
    """Yield the plain values that a column may be given, each with the buckets of the rows that may get it."""
    if isinstance(value, Case):
        for each in value.cases:
            # bulk_update() gives each row, by its id, a value of its own.
            yield from _literals(entry, field, each.result, routing.narrowed(buckets, each.condition))
        yield from _literals(entry, field, value.default, buckets)
    elif isinstance(value, Value):
        yield from _literals(entry, field, value.value, buckets)
    elif isinstance(value, Cast):
        for each in value.get_source_expressions():
            yield from _literals(entry, field, each, buckets)
    elif isinstance(value, Col) and entry.rule(value.target.attname) is not None:
        # Another column of the same row names the same bucket.
        return
    elif hasattr(value, "resolve_expression"):
        raise BucketMismatch(
            f"{entry.label}.{field.name} is set to the expression {value!r}, so its bucket cannot be verified. "
            f"Set it to a plain value.",
            model=entry.label,
            field=field.name,
            value=value,
            expected=-1,
            found=-1,
        )
    else:
        plain = _plain(field, value)
        # An unsaved instance is Django's to refuse.
        if plain is not None:
            yield plain, buckets


def _plain(field: Any, value: Any) -> Any:
    """Return the column's value when an instance was assigned to a foreign key."""
    return getattr(value, field.target_field.attname) if isinstance(value, Model) else value


def _verify_literal(entry: Entry, field: Any, value: Any, buckets: Buckets) -> None:
    found = entry.columns[field.attname](field.get_prep_value(value))
    if buckets is not None and len(buckets) == 1:
        (bucket,) = buckets
        entry.verify_value(field.attname, value, bucket)
    elif buckets is None or buckets:
        raise BucketMismatch(
            f"This update would set {entry.label}.{field.name} to {value!r}, a row of bucket {found}, for rows of "
            f"other buckets as well. Limit it to one {entry.key}.",
            model=entry.label,
            field=field.name,
            value=value,
            expected=-1,
            found=-1 if found is None else found,
        )

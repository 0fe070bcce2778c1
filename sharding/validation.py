"""
What a form is told before a row is refused: that its shard key cannot change, or that it refers to rows of another key.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from django.core.exceptions import ValidationError
from django.db.models import Model

from sharding import scopes
from sharding.entries import Entry
from sharding.errors import ShardKeyMissing, UnhashableKey


def errors_of(entry: Entry, values: Mapping[str, Any], stored: Any = None) -> dict[str, str]:
    """
    Return messages by the names of fields for values by attname that no row can have together.

    Args:
        stored: the shard key of the row that is changed; None for a new one.
    """
    key = values.get(entry.key_attname)
    if key is None:
        # What is missing is reported as such, or taken from the row that a new one refers to.
        return {}
    name = entry.key_field.verbose_name
    try:
        prepared, here = entry.prepare_key(key), scopes.key_of(entry)
        if stored is not None and prepared != entry.prepare_key(stored):
            return {entry.key: f"The {name} of a stored row cannot be changed."}
        if here is not None and prepared != here:
            return {entry.key: f"The {name} must be {here} here."}
        bucket = entry.bucket_of_key(key)
    except (ShardKeyMissing, UnhashableKey) as error:
        return {entry.key: str(error)}
    except (TypeError, ValueError, ValidationError):
        return {entry.key: f"{key!r} is no {name}."}
    return {
        field.name: f"This {field.verbose_name} belongs to another {name}."
        for attname, field in entry.references.items()
        if values.get(attname) is not None and not _is_in(bucket, entry, field, values[attname])
    }


def errors_of_instance(entry: Entry, instance: Model, exclude: Collection[str]) -> dict[str, str]:
    """Return the messages about the fields of an instance, except those that are not looked at."""
    found = _errors(entry, instance)
    hidden = [message for name, message in found.items() if name in exclude]
    if hidden:
        # A form may show the key and not what it disagrees with, such as the parent of an inline.
        found[entry.key] = hidden[0]
    return {name: message for name, message in found.items() if name not in exclude}


def left_out(entry: Entry, instance: Model, exclude: Collection[str] | None) -> set[str]:
    """
    Return the names of fields that are not looked at by checks of what is unique.

    A form hardly ever asks for the shard key of a stored row, and unique constraints contain it. Where it is known,
    they are checked all the same; but not what is unique by the key alone, since nobody could correct it.
    """
    names = set(exclude or ())
    # A key that is wrong itself is reported by clean_fields().
    known = instance.__dict__.get(entry.key_attname) is not None and entry.key not in _errors(entry, instance)
    return names - {entry.key} if known and not _is_unique_alone(entry) else names


def _errors(entry: Entry, instance: Model) -> dict[str, str]:
    # Without an id it is saved as a new row: the idiom for copying one.
    is_new = instance._state.adding or not instance._is_pk_set()  # type: ignore[attr-defined]
    stored = None if is_new else getattr(instance._state, "shard_key", None)
    # A deferred value stays unread: it is the stored one.
    return errors_of(entry, instance.__dict__, stored)


def _is_unique_alone(entry: Entry) -> bool:
    constraints: Any = entry.model._meta.total_unique_constraints
    return entry.key_field.unique or any(tuple(each.fields) == (entry.key,) for each in constraints)


def _is_in(bucket: int, entry: Entry, field: Any, value: Any) -> bool:
    try:
        return entry.columns[field.attname](field.get_prep_value(value)) == bucket
    except (TypeError, ValueError, ValidationError):
        # It is no value of the field, which is the field's own to tell.
        return True

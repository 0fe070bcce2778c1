"""
What a serializer is told before a row is refused: about its shard key, and about what is unique over the cluster.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from django.db.models import Model
from rest_framework.exceptions import ValidationError
from rest_framework.settings import api_settings
from rest_framework.validators import UniqueTogetherValidator, UniqueValidator

from sharding import registry, routing, scopes
from sharding.entries import Entry
from sharding.validation import errors_of


class PlacementValidator:
    """Tells that the shard key of a stored row changes, or that a row refers to one of another key."""

    requires_context = True

    def __init__(self, entry: Entry) -> None:
        self.entry = entry

    def __call__(self, attrs: Mapping[str, Any], serializer: Any) -> None:
        instance = stored(serializer)
        fields = [self.entry.key_field, *self.entry.references.values()]
        values = {field.attname: value_of(field, attrs, instance) for field in fields}
        key = None if instance is None else getattr(instance._state, "shard_key", None)
        if found := errors_of(self.entry, values, key):
            raise ValidationError({_shown(name, serializer): [message] for name, message in found.items()})

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.entry.label})>"


class UniqueRowValidator:
    """Tells that another row, on any shard, has the same values in fields that are unique together."""

    requires_context = True

    def __init__(self, entry: Entry, names: Iterable[str]) -> None:
        self.entry = entry
        self.fields: list[Any] = [entry.model._meta.get_field(name) for name in names]

    def __call__(self, attrs: Mapping[str, Any], serializer: Any) -> None:
        instance = stored(serializer)
        values = {field.attname: value_of(field, attrs, instance) for field in self.fields}
        if self.entry.key_attname in values:
            values[self.entry.key_attname] = key_of(self.entry, attrs, instance)
        if None in values.values():
            return
        if instance is not None and all(getattr(instance, name) == value for name, value in values.items()):
            return
        others: Any = self.entry.model._base_manager.filter(**values)
        if instance is not None:
            # A collation may find its old value equal to the new one.
            others = others.exclude(pk=instance.pk)
        # A lookup holds for all keys, whatever key the scope names. It is Django's own question, as in forms.
        with scopes.outside(self.entry), routing.probe():
            taken = others.exists()
        if taken:
            raise ValidationError(self._message(serializer), code="unique")

    def _message(self, serializer: Any) -> Any:
        names = [_shown(field.name, serializer) for field in self.fields]
        if len(names) == 1:
            return {names[0]: [UniqueValidator.message]}
        return {
            api_settings.NON_FIELD_ERRORS_KEY: [UniqueTogetherValidator.message.format(field_names=", ".join(names))]
        }

    def __repr__(self) -> str:
        return f"<{type(self).__name__}({self.entry.label}, {[field.name for field in self.fields]!r})>"


def stored(serializer: Any) -> Model | None:
    """Return the row that is changed; of the rows of a list none is known."""
    instance = serializer.instance
    return instance if isinstance(instance, Model) else None


def value_of(field: Any, attrs: Mapping[str, Any], instance: Model | None) -> Any:
    """Return what the column of a field is to hold: what was sent, else what is stored."""
    if field.attname in attrs and field.attname != field.name:
        return attrs[field.attname]
    if field.name in attrs:
        value = attrs[field.name]
        return getattr(value, field.target_field.attname) if isinstance(value, Model) else value
    # A deferred value stays unread: it is the stored one.
    return None if instance is None else instance.__dict__.get(field.attname)


def key_of(entry: Entry, attrs: Mapping[str, Any], instance: Model | None) -> Any:
    """Return the shard key that a row has, or gets of the scope or of the row that it refers to; None if unknown."""
    key = value_of(entry.key_field, attrs, instance)
    if key is None and (key := scopes.key_of(entry)) is None:
        parents = (attrs.get(field.name) for field in entry.references.values())
        families = ((parent, registry.entry(type(parent))) for parent in parents if isinstance(parent, Model))
        keys = (getattr(parent, of.key_attname) for parent, of in families if of and of.family == entry.family)
        key = next(keys, None)
    return key


def _shown(name: str, serializer: Any) -> str:
    """Return the name of the serializer's field for a model's field."""
    names: dict[str, str] = {field.source: shown for shown, field in serializer.fields.items()}
    return names.get(name, name)

"""
The serializer of sharded models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from aggregator.contrib.rest_framework.validators import PlacementValidator, UniqueRowValidator
from aggregator.opt_in import fan_out
from sharding import registry
from sharding.entries import Entry


class ShardedModelSerializer(serializers.ModelSerializer):
    """
    The framework's ModelSerializer, which knows shard keys.

    A changed shard key, a reference to a row of another key, and values that another row of the cluster has are errors
    of their fields (400). Foreign keys to sharded models are found by id, and entered by it in the browsable API.
    """

    def get_validators(self) -> list[Any]:
        entry = self._entry
        return [*super().get_validators(), *([] if entry is None else [PlacementValidator(entry)])]

    def get_unique_together_validators(self) -> list[Any]:
        return [*super().get_unique_together_validators(), *self._unique_lookups()]

    def build_standard_field(self, field_name: str, model_field: Any) -> tuple[Any, Any]:
        field_class, kwargs = super().build_standard_field(field_name, model_field)
        if self._is_looked_up(model_field) and "validators" in kwargs:
            # The lookup's own validator asks once, and outside of a scope.
            kwargs["validators"] = [each for each in kwargs["validators"] if not isinstance(each, UniqueValidator)]
        return field_class, kwargs

    def build_relational_field(self, field_name: str, relation_info: Any) -> tuple[Any, Any]:
        field_class, kwargs = super().build_relational_field(field_name, relation_info)
        if registry.entry(relation_info.related_model) is not None and "queryset" in kwargs:
            kwargs["queryset"] = fan_out(kwargs["queryset"])
            if not kwargs.get("many"):
                # In place of a choice among all rows of all shards.
                kwargs.setdefault("style", {"base_template": "input.html"})
        return field_class, kwargs

    def create(self, validated_data: Any) -> Any:
        self._verify(validated_data)
        return super().create(validated_data)

    def update(self, instance: Any, validated_data: Any) -> Any:
        self._verify(validated_data)
        return super().update(instance, validated_data)

    def _verify(self, validated_data: Any) -> None:
        """Check what the view has added by save(tenant_id=…), too."""
        entry = self._entry
        if entry is None:
            return
        PlacementValidator(entry)(validated_data, self)
        if getattr(self.Meta, "validators", None) is None:
            for names in self._unique_with_key(entry):
                UniqueRowValidator(entry, names)(validated_data, self)

    @property
    def _entry(self) -> Entry | None:
        return registry.entry(self.Meta.model)

    def _unique_lookups(self) -> Iterator[UniqueRowValidator]:
        """Yield the validators of the lookups of which the serializer writes a field."""
        entry = self._entry
        if entry is not None:
            for lookup in entry.lookups:
                if lookup.unique and self._writes(lookup.attnames):
                    yield UniqueRowValidator(entry, lookup.attnames)

    def _unique_with_key(self, entry: Entry) -> Iterator[Sequence[str]]:
        """Yield what is unique together with a shard key that the serializer does not know: the framework leaves it."""
        options: Any = entry.model._meta
        for names in (*options.unique_together, *(each.fields for each in options.total_unique_constraints)):
            if entry.key in names and not self._writes([entry.key]) and self._writes(names):
                yield names

    def _writes(self, names: Iterable[str]) -> bool:
        """Return whether a field of the serializer writes one of the model's, which may be named by attname."""
        written = {field.source for field in self._writable_fields}
        fields: list[Any] = [self.Meta.model._meta.get_field(name) for name in names]
        return any(not written.isdisjoint({each.name, each.attname}) for each in fields)

    def _is_looked_up(self, model_field: Any) -> bool:
        entry = self._entry
        return entry is not None and any(
            lookup.unique and tuple(lookup.attnames) == (model_field.attname,) for lookup in entry.lookups
        )

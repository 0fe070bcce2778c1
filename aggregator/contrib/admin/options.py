"""
The classes that a project's admin inherits from.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.options import BaseModelAdmin
from django.db.models import ForeignKey, QuerySet
from django.forms.models import _get_foreign_key
from django.http import HttpRequest

from aggregator.contrib.admin.changelist import ShardedChangeList
from aggregator.contrib.admin.checks import ShardedModelAdminChecks
from aggregator.contrib.admin.deleting import Deleted, deleted_objects
from aggregator.contrib.admin.filters import each_across_shards
from aggregator.opt_in import fan_out
from sharding import registry, scopes


class Sharded(BaseModelAdmin):  # type: ignore[type-arg]
    """
    What the admin of a model and inlines share.

    Foreign keys to sharded models are entered by id, unless they are in ``autocomplete_fields`` or ``radio_fields``:
    a list of all rows of all shards is no field of a form.
    """

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        chosen = {*self.raw_id_fields, *self.autocomplete_fields, *self.radio_fields}
        others = [field.name for field in self.opts.fields if _refers_to_shards(field) and field.name not in chosen]
        self.raw_id_fields = [*self.raw_id_fields, *others]  # type: ignore[misc]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        queryset = super().get_queryset(request)
        return queryset if registry.entry(self.model) is None else fan_out(queryset)

    def formfield_for_foreignkey(self, db_field: Any, request: HttpRequest, **kwargs: Any) -> Any:
        if _refers_to_shards(db_field) and "queryset" not in kwargs:
            queryset = self.get_field_queryset(kwargs.get("using"), db_field, request)
            target = db_field.remote_field.model
            kwargs["queryset"] = fan_out(target._default_manager if queryset is None else queryset)
        return super().formfield_for_foreignkey(db_field, request, **kwargs)


class ShardedModelAdmin(Sharded, admin.ModelAdmin):  # type: ignore[type-arg]
    """
    The admin of a sharded model: lists ask every shard, and a row's own pages the one where it is.

    It serves global models that refer to sharded ones, too.
    """

    checks_class = ShardedModelAdminChecks

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ShardedChangeList]:
        return ShardedChangeList

    def get_list_filter(self, request: HttpRequest) -> Any:
        return each_across_shards(super().get_list_filter(request))

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Deleted:
        return deleted_objects(objs, request, self.admin_site)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        entry = registry.entry(self.model)
        key = None if entry is None else scopes.key_of(entry)
        scoped = {} if entry is None or key is None else {entry.key: key}
        return {**scoped, **super().get_changeform_initial_data(request)}

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return the shard key as well when a row is changed: a stored row's never changes."""
        fields = super().get_readonly_fields(request, obj)
        entry = registry.entry(self.model)
        # Saved as a new row, it may get another key; the form tells when it was meant for the old one.
        if obj is None or entry is None or self.save_as or entry.key in fields or not entry.key_field.editable:
            return fields
        return [*fields, entry.key]


class _ShardedInline(Sharded):
    """An inline whose rows have the shard key of their parent, which the form therefore does not ask for."""

    def get_exclude(self, request: HttpRequest, obj: Any = None) -> Any:
        exclude = super().get_exclude(request, obj)
        key = self._inherited_key()
        if key is None or key in (self.fields or ()):
            return exclude
        # What the form class leaves out counts only if nothing is said here.
        named = exclude if exclude is not None else getattr(getattr(self.form, "_meta", None), "exclude", None)
        return [*(named or ()), key]

    def _inherited_key(self) -> str | None:
        """Return the field that a new row takes from its parent, unless the parent itself is the key."""
        inline: Any = self
        entry, parent = registry.entry(inline.model), registry.entry(inline.parent_model)
        if entry is None or parent is None or entry.family != parent.family:
            return None
        field: Any = _get_foreign_key(inline.parent_model, inline.model, fk_name=inline.fk_name)
        return entry.key if field.attname in entry.references else None


class ShardedTabularInline(_ShardedInline, admin.TabularInline):  # type: ignore[type-arg]
    """Rows of a sharded model on the page of another row, as a table."""


class ShardedStackedInline(_ShardedInline, admin.StackedInline):  # type: ignore[type-arg]
    """Rows of a sharded model on the page of another row, each as a form."""


def _refers_to_shards(field: Any) -> bool:
    return isinstance(field, ForeignKey) and registry.entry(field.remote_field.model) is not None

"""
Checks of a ModelAdmin's options: what is searched, filtered and sorted by must be where the rows are.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib.admin.checks import ModelAdminChecks
from django.core import checks
from django.core.checks import CheckMessage

from aggregator.contrib.admin import paths


class ShardedModelAdminChecks(ModelAdminChecks):
    """Django's, and that no option joins rows of another database."""

    def check(self, admin_obj: Any, **kwargs: Any) -> list[CheckMessage]:
        return [*super().check(admin_obj, **kwargs), *_joins(admin_obj)]


def _joins(admin_obj: Any) -> Iterator[CheckMessage]:
    for option, path in _paths(admin_obj):
        field = paths.crossing(admin_obj.model, path)
        if field is None:
            continue
        target = field.remote_field.model._meta
        yield checks.Error(
            f"The value of {option!r} names {path!r}, and {field.name!r} refers to {target.label}, whose rows are in "
            f"another database.",
            hint=f"Name {field.attname!r} or a field of {field.model._meta.object_name}, or make {target.object_name} "
            f"a reference model.",
            obj=admin_obj.__class__,
            id="aggregator.E001",
        )


def _paths(admin_obj: Any) -> Iterator[tuple[str, str]]:
    """Yield the options that become a part of SQL, with the paths in them."""
    for name in admin_obj.search_fields:
        yield "search_fields", name.lstrip("^=@")
    for item in admin_obj.list_filter:
        path = item[0] if isinstance(item, (tuple, list)) else item
        if isinstance(path, str):
            yield "list_filter", path
    if admin_obj.date_hierarchy:
        yield "date_hierarchy", admin_obj.date_hierarchy
    for name in admin_obj.ordering or ():
        if isinstance(name, str):
            yield "ordering", name.lstrip("-+")

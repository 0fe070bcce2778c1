"""
What the admin shows before it deletes: the rows that go along, in whatever database they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.contrib.admin.sites import AdminSite
from django.contrib.admin.utils import NestedObjects, quote
from django.db import router
from django.db.models import Model
from django.db.models.deletion import Collector
from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse
from django.utils.html import format_html
from django.utils.text import capfirst

from aggregator.attaching import attach
from aggregator.contrib.admin import paths

Deleted = tuple[list[Any], dict[Any, int], set[Any], list[Any]]


class DependentObjects(NestedObjects):
    """Django's, which joins each dependent row with what it depends on; here that may be in another database."""

    def related_objects(self, related_model: Any, related_fields: Any, objs: Any) -> Any:
        found = Collector.related_objects(self, related_model, related_fields, objs)
        joined, attached = paths.divided(related_model, [field.name for field in related_fields])
        if joined:
            found = found.select_related(*joined)
        return attach(found, *attached) if attached else found


def deleted_objects(objs: Sequence[Model], request: HttpRequest, site: AdminSite) -> Deleted:
    """Return what django.contrib.admin.utils.get_deleted_objects() returns for some rows of one model."""
    if not objs:
        return [], {}, set(), []
    collector: Any = DependentObjects(using=router.db_for_write(type(objs[0])), origin=objs)
    collector.collect(objs)
    forbidden: set[Any] = set()

    def shown(obj: Model) -> Any:
        model = type(obj)
        if site.is_registered(model) and not site.get_model_admin(model).has_delete_permission(request, obj):
            forbidden.add(model._meta.verbose_name)
        return _linked(obj, site)

    nested = collector.nested(shown)
    protected = [shown(each) for each in collector.protected]
    counts = {model._meta.verbose_name_plural: len(found) for model, found in collector.model_objs.items()}
    return nested, counts, forbidden, protected


def _linked(obj: Model, site: AdminSite) -> str:
    """Return the name of a row, with a link to its page if it has one."""
    options = obj._meta
    name = capfirst(options.verbose_name)
    if site.is_registered(type(obj)):
        try:
            view = f"{site.name}:{options.app_label}_{options.model_name}_change"
            return format_html('{}: <a href="{}">{}</a>', name, reverse(view, None, (quote(obj.pk),)), obj)
        except NoReverseMatch:
            pass
    return f"{name}: {obj}"

"""
The filters beside a list: their choices are asked from every shard.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.contrib.admin import AllValuesFieldListFilter, FieldListFilter, RelatedFieldListFilter
from django.contrib.admin import RelatedOnlyFieldListFilter as DjangosRelatedOnly
from django.contrib.admin.options import ModelAdmin
from django.http import HttpRequest

from aggregator.opt_in import fan_out
from sharding import registry, routing


class RelatedOnlyFieldListFilter(RelatedFieldListFilter):
    """Django's, whose subquery for the ids in use would be one over another database's rows."""

    def field_choices(self, field: Any, request: HttpRequest, model_admin: ModelAdmin[Any]) -> Any:
        ids = model_admin.get_queryset(request).order_by().values_list(f"{self.field_path}__pk", flat=True).distinct()
        return field.get_choices(
            include_blank=False,
            limit_choices_to={"pk__in": [each for each in ids if each is not None]},
            ordering=self.field_admin_ordering(field, request, model_admin),
        )


def across_shards(filter_class: Callable[..., Any]) -> Callable[..., Any]:
    """Return what makes a filter of a class, or by Django's choice of one, whose choices may be on every shard."""
    made = RelatedOnlyFieldListFilter if filter_class is DjangosRelatedOnly else filter_class

    def make(*args: Any, **kwargs: Any) -> Any:
        # The related rows that a filter lists are one of Django's own questions.
        with routing.probe():
            found = made(*args, **kwargs)
        # It asks later.
        if isinstance(found, AllValuesFieldListFilter) and registry.entry(found.lookup_choices.model) is not None:
            found.lookup_choices = fan_out(found.lookup_choices)
        return found

    return make


def each_across_shards(list_filter: Any) -> list[Any]:
    """Return the items of ``list_filter``; filters that are no fields' stay as they are."""
    return [_across(each) for each in list_filter]


def _across(item: Any) -> Any:
    if callable(item):
        return item
    path, filter_class = item if isinstance(item, (tuple, list)) else (item, FieldListFilter.create)
    return path, across_shards(filter_class)

"""
The list of the admin: columns of foreign keys come with their objects, in whatever database these are.
"""

from __future__ import annotations

from typing import Any

from django.contrib.admin.views.main import ChangeList
from django.db.models import ForeignKey, QuerySet
from django.http import HttpRequest

from aggregator.attaching import attach
from aggregator.contrib.admin import paths


class ShardedChangeList(ChangeList):
    """
    Django's list, in which ``list_select_related`` and the foreign keys of ``list_display`` may lead anywhere.

    What one database holds is joined; the rest is attached to the rows of the page, one query for each relation.
    """

    #: The paths to attach.
    attached: tuple[str, ...] = ()

    def apply_select_related(self, qs: QuerySet[Any]) -> QuerySet[Any]:
        joined, attached = paths.divided(self.model, self._wanted())
        self.attached = tuple(attached)
        return qs.select_related(*joined) if joined else qs

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        # Not before: actions get the queryset, and may ask it for values(). A paginator may give a list.
        if self.attached and isinstance(self.result_list, QuerySet):
            self.result_list = attach(self.result_list, *self.attached)

    def get_ordering_field(self, field_name: Any) -> Any:
        field = paths.foreign_key(self.model, field_name)
        if field is None or paths.is_joined(field):
            return super().get_ordering_field(field_name)
        # The order of the other database's rows is known there alone: these come in the order of the ids.
        return field.attname

    def _wanted(self) -> list[str]:
        wanted: Any = self.list_select_related
        if wanted is True:
            return [field.name for field in self.opts.fields if isinstance(field, ForeignKey)]
        return paths.foreign_keys_shown(self.model, self.list_display) if wanted is False else list(wanted)

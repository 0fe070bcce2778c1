"""
Cursor pagination by keysets: the framework's options, links and response, over KeysetPaginator.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request
from rest_framework.utils.urls import replace_query_param

from aggregator.pagination import KeysetPage, KeysetPaginator
from sharding.errors import InvalidCursor


class KeysetCursorPagination(CursorPagination):
    """
    The framework's CursorPagination, whose cursors are KeysetPaginator's: signed, exact among equal values, any order.

    ``ordering`` names fields of the model; the primary key is added. A cursor of another origin is answered by 404.
    """

    _page: KeysetPage[Any]

    def paginate_queryset(self, queryset: QuerySet[Any], request: Request, view: Any = None) -> list[Any] | None:
        self.request = request
        self.page_size = self.get_page_size(request)
        if not self.page_size:
            return None
        self.base_url = request.build_absolute_uri()
        self.ordering = self.get_ordering(request, queryset, view)
        paginator = KeysetPaginator(queryset, self.page_size, ordering=self.ordering)
        try:
            # An empty parameter is the first page, as it is the framework's.
            self._page = paginator.page(request.query_params.get(self.cursor_query_param) or None)
        except InvalidCursor as error:
            raise NotFound(self.invalid_cursor_message) from error
        links = (self.get_next_link(), self.get_previous_link())
        self.display_page_controls = any(links) and self.template is not None
        return self._page.items

    def get_next_link(self) -> str | None:
        return self._link(self._page.next_cursor)

    def get_previous_link(self) -> str | None:
        return self._link(self._page.previous_cursor)

    def _link(self, cursor: str | None) -> str | None:
        if cursor is None:
            return None
        link: str = replace_query_param(self.base_url, self.cursor_query_param, cursor)
        return link

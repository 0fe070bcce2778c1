"""
A middleware that opens a scope for the shard key of the request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.core.exceptions import ImproperlyConfigured, MiddlewareNotUsed
from django.http import HttpRequest, HttpResponseBase
from django.utils.module_loading import import_string

from sharding import conf
from sharding.scopes import scope


class ScopeMiddleware:
    """
    Run each request inside ``sharding.scope(key)``, where ``key`` is what SHARDING["SCOPE_FROM_REQUEST"] returns.

    The setting is the path of a function that takes the request and returns its shard key, or None for a request
    without one. In a project with several families it returns ``sharding.scope(key, of=Model)`` instead.
    The scope ends with the view: a streamed body is produced outside.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        path = conf.current().scope_from_request
        if path is None:
            raise MiddlewareNotUsed('SHARDING["SCOPE_FROM_REQUEST"] is not set.')
        self.get_response = get_response
        self.key_of = import_string(path)
        if not callable(self.key_of):
            raise ImproperlyConfigured(
                f'SHARDING["SCOPE_FROM_REQUEST"] is {path!r}, which is not callable. '
                f"Name a function that takes the request and returns its shard key."
            )
        self.is_async = iscoroutinefunction(get_response)
        if self.is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        if self.is_async:
            return self._acall(request)
        with self._scope(request):
            response: HttpResponseBase = self.get_response(request)
        return response

    async def _acall(self, request: HttpRequest) -> HttpResponseBase:
        with self._scope(request):
            response: HttpResponseBase = await self.get_response(request)
        return response

    def _scope(self, request: HttpRequest) -> AbstractContextManager[None]:
        key: Any = self.key_of(request)
        if isinstance(key, AbstractContextManager):
            return key
        return nullcontext() if key is None else scope(key)

"""
ScopeMiddleware, through Django's test clients: the scope lasts as long as the request, and no longer.
"""

from __future__ import annotations

import pytest
from django.core.exceptions import MiddlewareNotUsed
from django.http import HttpResponse

from sharding.middleware import ScopeMiddleware
from tests.messages import whole


def test_not_used_without_the_setting() -> None:
    with pytest.raises(MiddlewareNotUsed, match=whole('SHARDING["SCOPE_FROM_REQUEST"] is not set.')):
        ScopeMiddleware(lambda request: HttpResponse())

"""
Joins and subqueries: answered where the rows are, or refused, wherever the buckets live today.
"""

from __future__ import annotations

import pytest

from sharding import locality, registry, routing
from sharding.errors import CannotMerge
from tests.messages import whole
from tests.shop.models import Line, Order


def test_subquery_of_another_key_is_refused() -> None:
    query = Order.objects.filter(tenant_id=3, pk__in=Line.objects.filter(tenant_id=4).values("order")).query
    message = (
        "This shop.Order query cannot be answered inside one bucket because of the subquery over shop.Line. Limit both "
        "queries to the same shard key, correlate them by it (OuterRef), or evaluate the inner one first: list(inner)."
    )
    with pytest.raises(CannotMerge, match=whole(message)):
        locality.check(query, registry.get(Order), routing.buckets_of(query))

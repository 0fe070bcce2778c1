"""
What is compared with what: the answer of each shard by itself, of all of them, and of one database.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

from django.db.models import Model, QuerySet

from tests import servers
from tests.shop.models import Order
from tests.two_sides import Ask, answers, plain, save


def orders(tenants: Sequence[int], *columns: Sequence[Any], field: str = "status") -> None:
    """Write one order for each value; the first column holds those of the first shard."""
    rows = [
        Order(tenant_id=tenant, **{field: value})
        for tenant, values in zip(tenants, columns, strict=False)
        for value in values
    ]
    save(Order, rows)


def of_each_shard(ask: Ask) -> list[Any]:
    """Return what every shard answers by itself."""

    def side(alias: str) -> Callable[[type[Model]], QuerySet[Any]]:
        return lambda model: model._default_manager.using(alias)

    return [plain(ask(side(alias))) for alias in servers.SHARDS]


def joined(lists: Sequence[Any]) -> list[Any]:
    return list(chain.from_iterable(lists))


def require(ask: Ask, naive: Any) -> Any:
    """Compare the cluster with one database, and see that the naive answer would have been another one."""
    found, expected = answers(ask)
    assert found == expected
    assert naive != expected
    return expected

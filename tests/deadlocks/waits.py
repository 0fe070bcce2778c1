"""Blocks that wait for each other."""

from __future__ import annotations

import time
from collections.abc import Callable

from tests.deadlocks.conftest import BOUND, Block, scalar
from tests.layouts import CLUSTER
from tests.shop.models import Order
from tests.transactions.conftest import elsewhere


def mark(order: Order, status: str) -> Callable[[], object]:
    return lambda: Order.objects.filter(tenant_id=order.tenant_id, pk=order.pk).update(status=status)


def statuses(orders: dict[str, Order]) -> list[str]:
    return [Order.objects.get(pk=each.pk).status for each in orders.values()]


def stuck(*waiting: Block) -> None:
    """Wait until these blocks wait for locks."""
    names = [f"%{block.name}" for block in waiting]
    seen = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE ANY(%s)"
    deadline = time.monotonic() + BOUND
    while sum(elsewhere(lambda: [scalar(alias, seen, names) for alias in CLUSTER])) < len(waiting):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def hold_and_wait(*each: Block) -> None:
    """Let every block take its first step, the oldest first, and then wait in its second."""
    for block in each:
        block.go()
    for block in each:
        block.go(wait=False)
    stuck(*each)


def opposite(orders: dict[str, Order]) -> tuple[Block, Block]:
    older = Block(mark(orders["shard_a"], "older"), mark(orders["shard_b"], "older"))
    younger = Block(mark(orders["shard_b"], "younger"), mark(orders["shard_a"], "younger"))
    return older, younger

"""
Readers of what never changes, whatever moves.
"""

from __future__ import annotations

from django.db.models import Count, Sum

from aggregator import fan_out
from tests.moving.ledger.totals import FarTransfers, Sweeps, Transfers
from tests.moving.ledger.writers import Writer
from tests.shop.models import Order


class Totals(Writer):
    """
    Rows that are counted and added up over all shards, and on the shard of one tenant.

    What goes between two shards shows on one of them first, so that those rows are only counted.
    """

    def step(self) -> None:
        rows = fan_out(Order.objects)
        counted = self.book.acknowledged(
            lambda: dict(
                rows.filter(status__in=[Transfers.status, FarTransfers.status, Sweeps.status])
                .values_list("status")
                .annotate(n=Count("pk"))
            )
        )
        assert len(set(counted.values())) == 1, counted
        assert set(counted.values()) == {len(self.given)}, counted
        inside = Order.objects.filter(tenant_id=self.tenant(), status=Transfers.status)
        for found, number in ((rows.filter(status=Transfers.status), len(self.tenants)), (inside, 1)):
            each = len(self.given) // len(self.tenants) * number
            added = self.book.acknowledged(lambda found=found: found.aggregate(n=Count("pk"), total=Sum("total")))
            assert added == {"n": each, "total": Transfers.total * each}, added
        assert self.book.acknowledged(rows.filter(status=Sweeps.status).count) == len(self.given)
        self.book.met["answers"] += 4

    def __post_init__(self) -> None:
        """The rows are others'."""
        self.made = 0

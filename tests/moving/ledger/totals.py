"""
Writers of rows that readers count and add up meanwhile: see readers.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction
from django.db.models import F

from aggregator import fan_out
from tests.moving.ledger.writers import Writer
from tests.shop.models import Order


class Transfers(Writer):
    """Between two rows of one bucket, whose total nobody ever sees changed."""

    status = "inside"
    total = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self.has = dict.fromkeys((key for key, _ in self.given), self.total)

    def step(self) -> None:
        first, second = self.pair()
        amount = self.rng.randrange(1, 10)

        def block() -> None:
            with transaction.atomic(using="default"):
                for key, change in ((first, -amount), (second, amount)):
                    assert Order.objects.filter(pk=key).update(total=F("total") + change) == 1

        self.book.acknowledged(block)
        for key, change in ((first, -amount), (second, amount)):
            self.has[key] += change
            self.note_given(key, self.has[key], None)

    def pair(self) -> Sequence[str]:
        tenant = self.tenant()
        return self.rng.sample([key for key, its in self.given if its == tenant], 2)


class FarTransfers(Transfers):
    """Between rows of two buckets, which may be on two shards, or on one now and on two later."""

    status = "across"

    def pair(self) -> Sequence[str]:
        first, second = self.rng.sample(self.tenants, 2)
        return [self.rng.choice([key for key, its in self.given if its == tenant]) for tenant in (first, second)]


class Sweeps(Writer):
    """Statements for all shards: they change each row once, or none."""

    status = "swept"

    def __post_init__(self) -> None:
        super().__post_init__()
        self.swept = 0

    def step(self) -> None:
        rows = fan_out(Order.objects).filter(status=self.status)
        self.swept += 1
        found = self.book.acknowledged(lambda: rows.update(quantity=self.swept, total=F("total") + 1))
        assert found == len(self.given), f"{found} rows were updated, not {len(self.given)}"
        for key, _ in self.given:
            self.note_given(key, self.swept, self.swept)
        chaff = [Order(tenant_id=tenant, status="chaff") for tenant in self.tenants for _ in range(2)]
        self.book.acknowledged(lambda: Order.objects.bulk_create(chaff))
        gone = self.book.acknowledged(lambda: fan_out(Order.objects).filter(status="chaff").delete())
        assert gone[0] == len(chaff), f"{gone} rows were deleted, not {len(chaff)}"

"""What an entry makes of a shard key: only what the column would keep may decide where a row is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import pytest
from django.db import models
from django.test.utils import isolate_apps

from sharding import bucket_of, registry, scope
from sharding.errors import UnhashableKey
from sharding.fields import ShardUUIDField
from sharding.models import ShardedModel
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER
from tests.messages import whole

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def priced(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Price, whose key is a Decimal of two places, and Offer, whose key refers to it. They have no tables."""
    monkeypatch.setattr(registry, "_models", {})
    registry.reset()
    with isolate_apps("tests.shop") as apps:

        class Price(ShardedModel):
            shard_key = "amount"
            amount = models.DecimalField(max_digits=8, decimal_places=2, primary_key=True)

            class Meta:
                app_label = "shop"

            def __str__(self) -> str:
                return str(self.amount)

        class Offer(ShardedModel):
            shard_key = "price"
            id = ShardUUIDField(primary_key=True)
            price = models.ForeignKey(Price, models.CASCADE, db_constraint=False)

            class Meta:
                app_label = "shop"

            def __str__(self) -> str:
                return str(self.price_id)

        yield apps
    registry.reset()


TOO_EXACT = Decimal("1.005")
USES: dict[str, tuple[str, str, Callable[[Any], object]]] = {
    "create": ("Price", "amount", lambda model: model.objects.create(amount=TOO_EXACT)),
    "bulk_create": (
        "Price",
        "amount",
        lambda model: model.objects.bulk_create([model(amount=Decimal(1)), model(amount=TOO_EXACT)]),
    ),
    "for_key": ("Price", "amount", lambda model: model.objects.for_key(TOO_EXACT)),
    "bucket_of": ("Price", "amount", lambda model: bucket_of(TOO_EXACT, model=model)),
    "scope": ("Price", "amount", lambda model: scope(TOO_EXACT, of=model).__enter__()),
    "reference": ("Offer", "price", lambda model: model.objects.create(price_id=TOO_EXACT)),
}


@pytest.mark.parametrize(("name", "key", "use"), USES.values(), ids=USES)
def test_a_decimal_that_the_column_would_round(priced: Any, name: str, key: str, use: Callable[[Any], object]) -> None:
    message = (
        f"shop.{name}.{key}=Decimal('1.005') has more than the 2 decimal places that the column keeps, so that another "
        f"key would be stored. Round it first."
    )
    with assert_statements({}), pytest.raises(UnhashableKey, match=whole(message)) as raised:
        use(priced.get_model(f"shop.{name}"))
    assert raised.value.key == TOO_EXACT


@pytest.mark.parametrize("same", [Decimal("1.5"), Decimal("1.50000"), Decimal("15E-1"), "1.500"], ids=repr)
def test_the_spelling_of_a_decimal_does_not_matter(priced: Any, same: Any) -> None:
    entry = registry.get(priced.get_model("shop.Price"))
    assert entry.bucket_of_key(same) == entry.bucket_of_key(Decimal("1.50"))
    assert entry.bucket_of_key(Decimal("1E+3")) == entry.bucket_of_key(1000)

"""A write of a reference model is committed on all databases or on none, whoever else writes or copies meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
from django.db import IntegrityError, OperationalError, connections, transaction
from django.db.models import F

from aggregator import fan_out
from sharding import reference_sync, routing
from sharding.errors import CrossShardTransaction, ShardsUnavailable
from tests import servers
from tests.blocks import undone
from tests.downtime import down
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.reference.copies import MODELS, everywhere, rows_of
from tests.shop.models import Country, Currency, Customer
from tests.transactions.conftest import prepared

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)

TWO_PHASES = servers.engine == "postgresql"


@pytest.fixture(autouse=True)
def cluster(transactional_db: None) -> Any:
    yield
    for model in MODELS:
        everywhere(model)
    assert prepared() == []


@pytest.fixture
def finland(transactional_db: None) -> Country:
    return Country.objects.create(code="FI", name="Finland", currency=Currency.objects.create(code="EUR"))


def committed_or_undone() -> AbstractContextManager[Any]:
    """A block over several databases, which SQLite cannot commit."""
    return transaction.atomic(using="default") if TWO_PHASES else undone()


def renamed(finland: Country) -> Country:
    finland.name = "Suomi"
    return finland


OUTSIDE_OF_A_BLOCK: dict[str, Callable[[Country], Any]] = {
    "create": lambda finland: Country.objects.create(code="SE", name="Sweden"),
    "save": lambda finland: renamed(finland).save(),
    "update": lambda finland: Country.objects.update(rate=F("rate") + 1),
    "delete": lambda finland: finland.delete(),
    "delete of a queryset": lambda finland: Currency.objects.all().delete(),
    "bulk_create": lambda finland: Country.objects.bulk_create(Country(code=code, name=code) for code in "abc"),
    "bulk_update": lambda finland: Country.objects.bulk_update([renamed(finland)], ["name"]),
    "get_or_create": lambda finland: Country.objects.get_or_create(code="SE"),
    "update_or_create": lambda finland: Country.objects.update_or_create(code="FI", defaults={"name": "Suomi"}),
}


@pytest.mark.parametrize("write", OUTSIDE_OF_A_BLOCK.values(), ids=OUTSIDE_OF_A_BLOCK)
def test_what_is_written_outside_of_a_block(write: Callable[[Country], Any], finland: Country) -> None:
    before = rows_of(Country, "default")
    write(finland)
    assert not connections["default"].in_atomic_block
    assert everywhere(Country) != before


def test_a_block_with_sharded_and_reference_rows(finland: Country) -> None:
    tenant = tenant_on("shard_a")
    with committed_or_undone():
        sweden = Country.objects.create(code="SE", name="Sweden")
        # The constraint is checked on the shard, where the new row is, too.
        Customer.objects.create(tenant_id=tenant, name="Ada", country=sweden)
        finland.name = "Suomi"
        finland.save()
        assert Country.objects.get(pk=finland.pk).name == "Suomi"
        assert Customer.objects.filter(tenant_id=tenant, country__name="Sweden").exists()
        assert list(Country.objects.using("shard_c").values_list("name", flat=True).order_by("name")) == [
            "Suomi",
            "Sweden",
        ]
    assert [each.country for each in Customer.objects.filter(tenant_id=tenant)] == [sweden] * TWO_PHASES


def test_a_block_that_is_rolled_back(finland: Country) -> None:
    before = everywhere(Country)
    with undone():
        Country.objects.create(code="SE", name="Sweden")
        finland.delete()
    assert everywhere(Country) == before


def test_a_part_of_a_block_that_is_rolled_back(finland: Country) -> None:
    with committed_or_undone():
        Country.objects.create(code="SE", name="Sweden")
        with undone():
            finland.delete()
        with pytest.raises(IntegrityError), transaction.atomic(using="default"):
            Country.objects.create(code="SE", name="again")
        assert {row[1] for row in everywhere(Country)} == {"FI", "SE"}
    assert len(everywhere(Country)) == 1 + TWO_PHASES


def test_a_block_without_two_phase_commit(finland: Country) -> None:
    with nullcontext() if TWO_PHASES else pytest.raises(CrossShardTransaction), transaction.atomic(using="default"):
        Country.objects.create(code="SE", name="Sweden")
    assert len(everywhere(Country)) == (2 if TWO_PHASES else 1)


NOT_WRITTEN = (
    "A write of the reference model shop.Country goes to every shard, and shard_b did not answer (OperationalError), "
    "so nothing is written. Repeat it when shard_b is up; .failures has its error."
)
ASKED = (
    "These shards did not answer: shard_b (OperationalError). A part of an answer is no answer, so there is none. "
    "Repeat the query when they are up; .failures has their errors."
)


@pytest.mark.parametrize("write", OUTSIDE_OF_A_BLOCK.values(), ids=OUTSIDE_OF_A_BLOCK)
def test_a_shard_that_is_down(write: Callable[[Country], Any], finland: Country, request) -> None:
    """Nothing is written anywhere, whatever the operation."""
    before = everywhere(Country)
    with down("shard_b"), pytest.raises(ShardsUnavailable) as caught:
        write(finland)
    # A delete first asks every shard for rows that refer to it.
    told = ASKED if "delete" in request.node.callspec.id else NOT_WRITTEN
    assert str(caught.value) == told
    assert isinstance(caught.value.failures["shard_b"], OperationalError)
    assert everywhere(Country) == before


def test_reads_go_on_while_a_shard_is_down(finland: Country) -> None:
    Customer.objects.create(tenant_id=tenant_on("shard_a"), name="Ada", country=finland)
    with down("shard_b"):
        assert Country.objects.get() == finland
        assert Customer.objects.filter(tenant_id=tenant_on("shard_a"), country__code="FI").exists()


def test_a_copy_that_refuses_the_row(finland: Country) -> None:
    """A row that somebody put into one copy stands in the way there; then nothing is written at all."""
    values = "(7000900, 'SE', 'x', 1, '2020-01-01')"
    with routing.native("shard_b"), connections["shard_b"].cursor() as cursor:
        cursor.execute(f"INSERT INTO shop_country (id, code, name, rate, changed) VALUES {values}")
    before = rows_of(Country, "default"), rows_of(Country, "shard_a")
    with pytest.raises(IntegrityError) as caught:
        Country.objects.create(code="SE", name="Sweden")
    assert caught.value.__notes__ == ["on shard 'shard_b'"]
    assert (rows_of(Country, "default"), rows_of(Country, "shard_a")) == before
    reference_sync.bring_up_to_date("shard_b")


def test_a_copy_that_lacks_the_row_is_given_it(finland: Country) -> None:
    with routing.native("shard_b"), connections["shard_b"].cursor() as cursor:
        cursor.execute("DELETE FROM shop_country")
    finland.save()
    everywhere(Country)


def test_a_reference_row_that_does_not_exist(finland: Country) -> None:
    with pytest.raises(IntegrityError):
        Customer.objects.create(tenant_id=tenant_on("shard_a"), name="Ada", country_id=finland.pk + 1)
    assert not fan_out(Customer.objects).exists()


def test_a_delete_reaches_the_sharded_rows_that_refer_to_it(finland: Country) -> None:
    for alias in ("shard_a", "shard_b"):
        Customer.objects.create(tenant_id=tenant_on(alias), name=alias, country=finland)
    count, by_model = finland.delete()
    assert (count, by_model) == (1, {"shop.Country": 1})
    assert [each.country_id for each in fan_out(Customer.objects)] == [None, None]
    sweden = Country.objects.create(code="SE", name="Sweden", currency_id="EUR")
    Customer.objects.create(tenant_id=tenant_on("shard_a"), name="Bo", email="bo", country=sweden)
    # From a reference model over another one to sharded rows.
    Currency.objects.all().delete()
    assert fan_out(Customer.objects).filter(country=None).count() == 3

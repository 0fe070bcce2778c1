"""A reference model by itself is read on the control database, and with sharded rows on the shard where these are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Prefetch, Q, Subquery, Sum
from django.db.models.functions import Coalesce

from aggregator import explain, fan_out
from aggregator.planner import Tier
from sharding.errors import CannotMerge, GlobalJoin, NotSharded, ShardKeyMissing
from sharding.testing.statements import assert_statements
from tests.layouts import CLUSTER, Layout, tenant_on
from tests.messages import whole
from tests.reference.conftest import World
from tests.shop.models import Country, Currency, Customer, Order, Region

pytestmark = pytest.mark.django_db(databases=CLUSTER)


@pytest.fixture
def tenant(layout: Layout, world: World) -> int:
    """A tenant at home with customers in both countries and in none, and one elsewhere with a customer in Sweden."""
    found = tenant_on(layout.home)
    for name, country in (("Ada", world.finland), ("Bo", world.sweden), ("Cy", None)):
        customer = Customer.objects.create(tenant_id=found, name=name, email=name, country=country)
        Order.objects.create(tenant_id=found, customer=customer, quantity=len(name))
    other = tenant_on(layout.away or layout.home, 1)
    Customer.objects.create(tenant_id=other, name="Di", email="Di", country=world.sweden)
    return found


def of(tenant: int) -> Any:
    return Customer.objects.filter(tenant_id=tenant).order_by("name")


LOCAL: dict[str, tuple[Callable[[int], Any], list[Any]]] = {
    "filter": (lambda tenant: of(tenant).filter(country__code="FI").values_list("name", flat=True), ["Ada"]),
    "exclude": (lambda tenant: of(tenant).exclude(country__code="FI").values_list("name", flat=True), ["Bo", "Cy"]),
    "filter over two": (
        lambda tenant: of(tenant).filter(country__currency__digits=2).values_list("name", flat=True),
        ["Ada", "Bo"],
    ),
    "exclude over many": (
        lambda tenant: of(tenant).exclude(country__neighbours__code="FI").values_list("name", flat=True),
        ["Ada", "Cy"],
    ),
    "filter over many": (
        lambda tenant: of(tenant).filter(country__neighbours__code="FI").values_list("name", flat=True),
        ["Bo"],
    ),
    "values": (
        lambda tenant: of(tenant).values_list("name", "country__currency__code"),
        [("Ada", "EUR"), ("Bo", "SEK"), ("Cy", None)],
    ),
    "order": (
        lambda tenant: of(tenant).order_by(F("country__name").desc(nulls_last=True)).values_list("name", flat=True),
        ["Bo", "Ada", "Cy"],
    ),
    "select_related": (
        lambda tenant: [
            each.country and each.country.currency.code for each in of(tenant).select_related("country__currency")
        ],
        ["EUR", "SEK", None],
    ),
    "group": (
        lambda tenant: (
            of(tenant)
            .exclude(country=None)
            .order_by()
            .values("country__code")
            .annotate(n=Count("pk"))
            .order_by("country__code")
        ).values_list("country__code", "n"),
        [("FI", 1), ("SE", 1)],
    ),
    "in a subquery": (
        lambda tenant: of(tenant).filter(country__in=Country.objects.filter(name="Sweden")).values_list("name"),
        [("Bo",)],
    ),
    "in a subquery that joins": (
        lambda tenant: of(tenant).filter(country__in=Country.objects.filter(currency__code="EUR")).values_list("name"),
        [("Ada",)],
    ),
    "exists": (
        lambda tenant: (
            of(tenant).filter(Exists(Country.objects.filter(pk=OuterRef("country"), code="SE"))).values_list("name")
        ),
        [("Bo",)],
    ),
    "exists at all": (
        lambda tenant: of(tenant).filter(Exists(Country.objects.all())).values_list("name"),
        [("Ada",), ("Bo",), ("Cy",)],
    ),
    "a value from a subquery": (
        lambda tenant: (
            of(tenant)
            .annotate(label=Subquery(Country.objects.filter(pk=OuterRef("country")).values("loud")))
            .values_list("label", flat=True)
        ),
        ["FINLAND", "SWEDEN", None],
    ),
    "a subquery in a subquery": (
        lambda tenant: (
            of(tenant)
            .filter(country__in=Country.objects.filter(currency__in=Currency.objects.filter(code="SEK")))
            .values_list("name")
        ),
        [("Bo",)],
    ),
    "a sharded subquery over a reference table": (
        lambda tenant: (
            Order.objects.filter(tenant_id=tenant)
            .filter(customer__in=of(tenant).filter(country__code="FI"))
            .values_list("quantity", flat=True)
        ),
        [3],
    ),
    "two joins": (
        lambda tenant: Order.objects.filter(tenant_id=tenant, customer__country__name="Sweden").values_list("quantity"),
        [(2,)],
    ),
    "a union": (
        lambda tenant: sorted(of(tenant).order_by().values_list("name").union(Country.objects.values_list("name"))),
        [("Ada",), ("Bo",), ("Cy",), ("Finland",), ("Sweden",)],
    ),
    "an aggregate": (
        lambda tenant: [Order.objects.filter(tenant_id=tenant).aggregate(n=Sum("customer__country__currency__digits"))],
        [{"n": 4}],
    ),
    "a count": (lambda tenant: [of(tenant).filter(Q(country=None) | Q(country__code="FI")).count()], [2]),
}


@pytest.mark.parametrize(("query", "expected"), LOCAL.values(), ids=LOCAL)
def test_joins_are_answered_by_the_shard_of_the_rows(
    query: Callable[[int], Any], expected: list[Any], layout: Layout, tenant: int, world: World
) -> None:
    world.finland.neighbours.add(world.sweden)
    with assert_statements({layout.home: 1}):
        assert list(query(tenant)) == expected


#: Text is ordered by Python, whatever the collation of the servers.
FANNED_OUT: dict[str, tuple[Callable[[], Any], Any]] = {
    "filter": (
        lambda: sorted(fan_out(Customer.objects).filter(country__code="SE").values_list("name", flat=True)),
        ["Bo", "Di"],
    ),
    "order": (
        lambda: (
            fan_out(Customer.objects)
            .exclude(country=None)
            .order_by("-country__rate", "tenant_id", "country__currency__digits")
            .values_list("country__code", flat=True)
        ),
        ["SE", "SE", "FI"],
    ),
    "group": (
        lambda: sorted(
            fan_out(Customer.objects)
            .exclude(country=None)
            .values("country__currency__code")
            .annotate(n=Count("pk"))
            .order_by()
            .values_list("country__currency__code", "n")
        ),
        [("EUR", 1), ("SEK", 2)],
    ),
    "distinct": (
        lambda: sorted(
            fan_out(Customer.objects).annotate(where=Coalesce("country__code", "name")).values_list("where").distinct()
        ),
        [("Cy",), ("FI",), ("SE",)],
    ),
    "count of different ones": (
        lambda: [fan_out(Customer.objects).aggregate(n=Count("country__currency", distinct=True))],
        [{"n": 2}],
    ),
    "select_related": (
        lambda: sorted(
            each.country.name if each.country else ""
            for each in fan_out(Customer.objects).select_related("country__currency")
        ),
        ["", "Finland", "Sweden", "Sweden"],
    ),
    "subquery": (
        lambda: sorted(
            fan_out(Customer.objects)
            .filter(country__in=Country.objects.filter(currency__code="SEK"))
            .values_list("name", flat=True)
        ),
        ["Bo", "Di"],
    ),
}


@pytest.mark.parametrize(("query", "expected"), FANNED_OUT.values(), ids=FANNED_OUT)
def test_joins_over_all_shards_are_merged(
    query: Callable[[], Any], expected: Any, layout: Layout, tenant: int, world: World
) -> None:
    assert list(query()) == expected


def test_the_tier_of_a_join_is_that_of_the_sharded_rows(layout: Layout, tenant: int) -> None:
    assert explain(of(tenant).filter(country__code="FI")).tier is Tier.ONE_SHARD
    assert explain(fan_out(Customer.objects).filter(country__code="FI")).tier is Tier.MERGE


def test_by_itself_it_is_read_on_the_control_database(layout: Layout, world: World) -> None:
    with assert_statements({"default": 4}):
        assert Country.objects.get(code="FI") == world.finland
        assert list(Country.objects.filter(currency__code="SEK")) == [world.sweden]
        assert Country.objects.select_related("currency").count() == 2
        assert list(Country.objects.exclude(currency__code="SEK").values_list("loud")) == [("FINLAND",)]


def test_the_row_behind_a_foreign_key(layout: Layout, tenant: int, world: World) -> None:
    ada = of(tenant).first()
    with assert_statements({"default": 1}):
        assert ada.country == world.finland
    assert ada.country._state.db == "default"


def test_prefetch_from_sharded_rows(layout: Layout, tenant: int) -> None:
    with assert_statements(layout.expect(home=1, default=1)):
        names = [each.country and each.country.name for each in of(tenant).prefetch_related("country")]
    assert names == ["Finland", "Sweden", None]


def test_prefetch_of_sharded_rows(layout: Layout, tenant: int) -> None:
    """They are on every shard, so it is asked for in the words of a fan-out."""
    message = (
        "This Customer query names no tenant_id, so its shard is unknown. Filter on tenant_id, or ask every shard with "
        "aggregator.fan_out()."
    )
    countries = Country.objects.order_by("code")
    with pytest.raises(ShardKeyMissing, match=whole(message)):
        list(countries.prefetch_related("customers"))
    found = countries.prefetch_related(Prefetch("customers", fan_out(Customer.objects)))
    assert [sorted(each.name for each in country.customers.all()) for country in found] == [["Ada"], ["Bo", "Di"]]
    mine = countries.prefetch_related(Prefetch("customers", of(tenant)))
    assert [[each.name for each in country.customers.all()] for country in mine] == [["Ada"], ["Bo"]]


def test_the_sharded_rows_of_a_reference_row(layout: Layout, tenant: int, world: World) -> None:
    with assert_statements({layout.home: 1}):
        assert [each.name for each in world.sweden.customers.filter(tenant_id=tenant)] == ["Bo"]
    with pytest.raises(ShardKeyMissing):
        world.sweden.customers.count()
    assert fan_out(world.sweden.customers.all()).count() == 2


@pytest.mark.parametrize(
    "query",
    [
        lambda tenant: Country.objects.filter(customers__tenant_id=tenant),
        lambda tenant: Country.objects.exclude(customers__name="Ada"),
        lambda tenant: Country.objects.order_by("customers__name"),
        lambda tenant: Country.objects.annotate(n=Count("customers")),
        lambda tenant: Country.objects.values("customers__name"),
    ],
)
def test_a_join_from_a_reference_model_to_sharded_rows_is_refused(
    query: Callable[[int], Any], layout: Layout, tenant: int
) -> None:
    message = (
        "This shop.Country query joins 'shop_customer', and a query of a reference model is answered by the control "
        "database, which has no sharded rows. Ask for the related rows in a query of their own (for example by "
        "prefetch_related())."
    )
    with assert_statements({}), pytest.raises(GlobalJoin, match=whole(message)):
        list(query(tenant))


def test_a_sharded_subquery_in_a_query_of_a_reference_model_is_refused(layout: Layout, tenant: int) -> None:
    message = (
        "A query that the control database answers contains a subquery over shop.Customer, and sharded rows live on "
        "other servers. Evaluate the inner query first: list(inner)."
    )
    inner = of(tenant).values("country")
    with assert_statements({}), pytest.raises(GlobalJoin, match=whole(message)):
        list(Country.objects.filter(pk__in=inner))
    with pytest.raises(GlobalJoin, match=whole(message)), transaction.atomic(using="default"):
        Country.objects.filter(pk__in=inner).update(name="?")
    with pytest.raises(GlobalJoin, match=whole(message)), transaction.atomic(using="default"):
        Country.objects.filter(pk__in=inner).delete()
    assert Country.objects.filter(pk__in=list(inner.values_list("country", flat=True))).count() == 2


JOIN = (
    "This shop.Customer query cannot be answered inside one bucket because of the join to shop.Customer. Its rows may "
    "lie in other buckets; query them on their own."
)


@pytest.mark.parametrize(
    "query",
    [
        lambda tenant: of(tenant).filter(country__customers__name="Di"),
        lambda tenant: of(tenant).filter(country__in=Country.objects.filter(customers__name="Di")),
        lambda tenant: of(tenant).filter(country__in=Country.objects.exclude(customers__name="Di")),
    ],
)
def test_a_join_that_comes_back_to_sharded_rows_is_refused(
    query: Callable[[int], Any], layout: Layout, tenant: int
) -> None:
    with assert_statements({}), pytest.raises(CannotMerge, match=whole(JOIN)):
        list(query(tenant))


def test_an_order_that_comes_back_to_sharded_rows_is_refused(layout: Layout, tenant: int) -> None:
    first = Country.objects.order_by("customers__name").values("code")[:1]
    with assert_statements({}), pytest.raises(GlobalJoin):
        list(of(tenant).annotate(code=Subquery(first)))


def test_joins_of_global_and_reference_models(layout: Layout, world: World) -> None:
    """Both are in the control database."""
    Region.objects.create(name="Finland")
    with assert_statements({"default": 1}):
        assert Region.objects.filter(name__in=Country.objects.values("name")).exists()
    with assert_statements({"default": 1}):
        assert Country.objects.filter(name__in=Region.objects.values("name")).get() == world.finland


def test_a_fan_out_of_a_reference_model_is_refused() -> None:
    message = (
        "shop.Country is a reference model, of which every database has all rows. Query it by itself: one database is "
        "asked."
    )
    for ask in (fan_out, lambda manager: explain(manager.all())):
        with pytest.raises(NotSharded, match=whole(message)) as caught:
            ask(Country.objects)
        assert caught.value.model == "shop.Country"


def test_one_copy_can_be_read_by_name(layout: Layout, world: World) -> None:
    with assert_statements({"shard_c": 2}):
        finland = Country.objects.using("shard_c").get(code="FI")
        assert Country.objects.using("shard_c").filter(customers__name="Ada").count() == 0
    assert finland._state.db == "default"
    finland.name = "Suomi"
    finland.save()

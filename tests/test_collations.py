"""Text that databases sort otherwise than Python, which sorts by code points: found out, and refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Case, Count, Max, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Collate, Length
from django.db.models.lookups import Exact

from aggregator import collations, fan_out
from sharding.errors import CannotMerge
from sharding.testing import cluster
from tests import servers
from tests.messages import whole
from tests.shop.models import Account, Line, Order

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", params=[3, 1], ids=["three shards", "one shard"], autouse=True)
def owners(request: Any, django_db_setup: None, django_db_blocker: Any) -> Any:
    with django_db_blocker.unblock(), cluster.owners(*("shard_a", "shard_b", "shard_c")[: request.param]):
        yield


def orders() -> QuerySet[Any]:
    return fan_out(Order.objects)


def product(collation: str) -> Subquery:
    lines = Line.objects.filter(order=OuterRef("pk")).order_by("pk")
    return Subquery(lines.values(text=Collate("product", collation))[:1])


#: A collation of a language, which PostgreSQL takes from ICU, and one of SQLite that ignores case.
OTHER = "und-x-icu" if servers.engine == "postgresql" else "nocase"
CODE_POINTS = "C" if servers.engine == "postgresql" else "binary"
EQUALS_Q = Exact(Collate("status", CODE_POINTS), Value("q"))
ORDERS = {
    "a field": lambda: Collate("status", OTHER),
    "a subquery": lambda: product(OTHER),
    "a case": lambda: Case(When(EQUALS_Q, then=Collate("status", OTHER))),
    "a case's default": lambda: Case(When(EQUALS_Q, then=Value("q")), default=Collate("status", OTHER)),
}


@pytest.mark.parametrize("by", ORDERS.values(), ids=ORDERS)
def test_order_under_another_collation(by: Any) -> None:
    message = (
        f"The answers of several shards to this shop.Order query cannot be merged exactly because of text ordered "
        f"under the collation {OTHER}. Order by Collate(…, 'C'), or limit the query to one shard key."
    )
    with pytest.raises(CannotMerge, match=whole(message)):
        list(orders().order_by(by()))


@pytest.mark.parametrize(
    ("database", "name"),
    [
        ({"datcollate": "C"}, "C"),
        ({"datcollate": "en_US.UTF-8", "datlocprovider": "c"}, "en_US.UTF-8"),
        ({"datcollate": "C", "datlocprovider": "i", "daticulocale": "und"}, "und"),
        ({"datcollate": "en_US.UTF-8", "datlocprovider": "b", "datlocale": "C.UTF-8"}, "C.UTF-8"),
    ],
    ids=["before 15", "libc", "icu", "builtin"],
)
def test_collations_of_databases(database: dict[str, Any], name: str) -> None:
    assert collations._name(database) == name


@pytest.mark.debian
class TestInALanguage:
    """A server whose databases sort text in a language; Python sorts by code points."""

    def test_order_by_text(self) -> None:
        with pytest.raises(CannotMerge) as caught:
            list(orders().order_by("status"))
        assert caught.value.construct == "text ordered under the collation en_US.UTF-8"

    def test_order_by_text_in_c(self) -> None:
        assert list(orders().order_by(Collate("status", "C"))) == []

    def test_order_by_a_subquery_in_c(self) -> None:
        assert list(orders().order_by(product("C"))) == []

    @pytest.mark.parametrize(
        "make",
        [
            lambda: orders().order_by(Case(When(Exact(Collate("status", "C"), Value("x")), then="status"))),
            lambda: (
                orders()
                .values("tenant_id")
                .annotate(last=Max("status", filter=Q(status__gt=Collate(Value("x"), "C"))))
                .order_by("last")
            ),
        ],
        ids=["a condition", "a filter"],
    )
    def test_what_is_only_compared_in_c(self, make: Any) -> None:
        with pytest.raises(CannotMerge) as caught:
            list(make())
        assert caught.value.construct == "text ordered under the collation en_US.UTF-8"

    def test_what_needs_no_order_of_text(self) -> None:
        for name in ["b", "A", "é", "a", "Z"]:
            Account.objects.create(owner=name)
        owners = fan_out(Account.objects).values("owner")
        assert sorted(row["owner"] for row in owners.distinct()) == ["A", "Z", "a", "b", "é"]
        found = [row["owner"] for row in owners.annotate(n=Count("id")).order_by("owner")]
        assert found == ["a", "A", "b", "é", "Z"]
        assert fan_out(Account.objects).order_by(Length("owner")).count() == 5

"""Text that databases sort otherwise than Python, which sorts by code points: found out, and ranked or refused."""

from __future__ import annotations

from typing import Any

import pytest
from django.db.models import Case, Count, F, Max, OuterRef, Q, QuerySet, Subquery, Value, When
from django.db.models.functions import Collate, Length
from django.db.models.lookups import Exact

from aggregator import fan_out
from sharding.errors import CannotMerge
from sharding.operations.servers import default_collation
from sharding.testing import cluster
from tests import servers
from tests.messages import whole
from tests.shop.models import Account, Line, Order
from tests.two_sides import answers, save

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


if servers.engine == "sqlite":

    @pytest.mark.parametrize("by", ORDERS.values(), ids=ORDERS)
    def test_order_under_another_collation(by: Any) -> None:
        message = (
            "The answers of several shards to this shop.Order query cannot be merged exactly because of text ordered "
            "under the collation nocase. Order by Collate(…, 'binary'), or limit the query to one shard key."
        )
        with pytest.raises(CannotMerge, match=whole(message)):
            list(orders().order_by(by()))

    def test_distinct_under_another_collation() -> None:
        message = (
            "The answers of several shards to this shop.Order query cannot be merged exactly because of DISTINCT under "
            "the nondeterministic collation nocase. Select other fields, or limit the query to one shard key."
        )
        with pytest.raises(CannotMerge, match=whole(message)):
            list(orders().values_list(Collate("status", OTHER)).distinct())


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
    assert default_collation(database) == name


@pytest.mark.debian
class TestInALanguage:
    """A server whose databases sort text in a language; Python sorts by code points."""

    @pytest.fixture(autouse=True)
    def _rows(self) -> None:
        rows = [Order(tenant_id=number % 8, status=status) for number, status in enumerate([*"bAéaZqQ_Bz"] * 3)]
        save(Order, rows)
        lines = [
            Line(tenant_id=each.tenant_id, order=each, product=f"{each.status}{n % 4}") for n, each in enumerate(rows)
        ]
        save(Line, lines)

    @pytest.mark.parametrize(
        "by",
        [*ORDERS.values(), lambda: F("status").desc(), lambda: Collate("status", "C"), lambda: product("C")],
        ids=[*ORDERS, "the databases' own", "a field in C", "a subquery in C"],
    )
    def test_orders(self, by: Any) -> None:
        found, expected = answers(lambda rows: rows(Order).order_by(by(), "id").values_list("status", "id"))
        assert found == expected
        assert len(found) == 30

    @pytest.mark.parametrize(
        "make",
        [
            lambda rows: (
                rows(Order)
                .order_by(Case(When(~Exact(Collate("status", "C"), Value("x")), then="status")), "id")
                .values("id")
            ),
            lambda rows: (
                rows(Order)
                .values("tenant_id")
                .annotate(last=Max("status", filter=Q(status__gt=Collate(Value("A"), "C"))))
                .order_by("last", "tenant_id")
            ),
        ],
        ids=["a condition", "a filter"],
    )
    def test_what_is_only_compared_in_c(self, make: Any) -> None:
        found, expected = answers(make)
        assert found == expected

    def test_what_needs_no_order_of_text(self) -> None:
        for name in ["b", "A", "é", "a", "Z"]:
            Account.objects.create(owner=name)
        owners = fan_out(Account.objects).values("owner")
        assert sorted(row["owner"] for row in owners.distinct()) == ["A", "Z", "a", "b", "é"]
        found = [row["owner"] for row in owners.annotate(n=Count("id")).order_by("owner")]
        assert found == ["a", "A", "b", "é", "Z"]
        assert fan_out(Account.objects).order_by(Length("owner")).count() == 5

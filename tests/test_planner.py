"""Which tier answers which query, and what is refused; nothing is asked of the shards' tables."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections
from django.db.models import (
    Avg,
    Count,
    F,
    Field,
    FloatField,
    Func,
    Q,
    StdDev,
    Sum,
    TextField,
    Window,
)
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast, RowNumber

from aggregator import explain, fan_out
from aggregator.explanation import Explanation
from aggregator.planner import Tier
from sharding.errors import CannotMerge, GlobalJoin, ShardKeyMissing
from sharding.testing import cluster
from tests import servers
from tests.aggregates import BitAnd, Median
from tests.messages import whole
from tests.shop.models import Customer, Line, Order

pytestmark = pytest.mark.django_db(databases="__all__")
SHARDS = ("shard_a", "shard_b", "shard_c")


@pytest.fixture(scope="module", params=[SHARDS, ("shard_a",)], ids=["three shards", "one shard"], autouse=True)
def owners(request: Any, django_db_setup: None, django_db_blocker: Any) -> Any:
    """What is planned depends on the query, never on how many shards there are today."""
    with django_db_blocker.unblock(), cluster.owners(*request.param):
        yield request.param


def orders() -> Any:
    return fan_out(Order.objects)


ROWS = "rows"
EQUAL_ONCE = "rows, of which equal ones of different shards count once"
GROUPS = "groups that may have rows on every shard"

PLANS = {
    "rows": (lambda: orders(), Tier.MERGE, ROWS),
    "sorted rows": (lambda: orders().order_by("-created")[:5], Tier.MERGE, ROWS),
    "distinct instances": (lambda: orders().filter(lines__amount=1).distinct(), Tier.MERGE, ROWS),
    "windows within a bucket": (
        lambda: orders().annotate(n=Window(Sum("total"), partition_by=["status", "tenant_id"], order_by="created")),
        Tier.MERGE,
        ROWS,
    ),
    "distinct with the key": (lambda: orders().values("status", "tenant_id").distinct(), Tier.MERGE, ROWS),
    "distinct without it": (lambda: orders().values("status").distinct(), Tier.MERGE, EQUAL_ONCE),
    "a nullable foreign key names no bucket": (lambda: orders().values("customer").distinct(), Tier.MERGE, EQUAL_ONCE),
    "groups": (lambda: orders().values("status").annotate(n=Count("id")), Tier.PARTIALS, GROUPS),
    "groups of a nullable foreign key": (
        lambda: orders().values("customer").annotate(n=Count("id")),
        Tier.PARTIALS,
        GROUPS,
    ),
    "deviations": (lambda: orders().values("status").annotate(x=StdDev("total")), Tier.PARTIALS, GROUPS),
    "groups of the key": (
        lambda: orders().values("tenant_id").annotate(n=Median("total")),
        Tier.MERGE,
        "groups, of which none spans two shards since tenant_id is grouped by",
    ),
    "groups of a foreign key": (
        lambda: fan_out(Line.objects).values("order").annotate(n=Count("id")),
        Tier.MERGE,
        "groups, of which none spans two shards since order is grouped by",
    ),
    "groups of the id": (
        lambda: orders().annotate(n=Count("lines")),
        Tier.MERGE,
        "groups, of which none spans two shards since id is grouped by",
    ),
    "several keys": (lambda: Order.objects.filter(tenant_id__in=[1, 2]), Tier.MERGE, ROWS),
    "nothing": (lambda: Order.objects.filter(tenant_id__in=[]), Tier.ONE_SHARD, "no row can match"),
}


@pytest.mark.parametrize(("make", "tier", "reason"), PLANS.values(), ids=PLANS.keys())
def test_plans(make: Any, tier: Tier, reason: str) -> None:
    found = explain(make())
    assert (found.tier, found.reason) == (tier, reason)


def test_one_key(owners: tuple[str, ...]) -> None:
    found = explain(Order.objects.filter(tenant_id=5))
    assert found.buckets is not None
    (bucket,) = found.buckets
    assert found.shards == (owners[bucket % len(owners)],)
    assert (found.tier, found.reason) == (Tier.ONE_SHARD, f"every row is in bucket {bucket}")


def test_every_shard(owners: tuple[str, ...]) -> None:
    assert explain(orders()) == Explanation(Tier.MERGE, ROWS, owners, None)


def test_refusals_are_explained() -> None:
    found = explain(Order.objects.filter(status="paid"))
    message = (
        "This Order query names no tenant_id, so its shard is unknown. Filter on tenant_id, or ask every shard with "
        "aggregator.fan_out()."
    )
    assert found == Explanation(None, message, (), None, ShardKeyMissing)
    assert explain(Customer.objects.filter(tenant_id=3, region__name="x")).error is GlobalJoin


class Twice(Sum):
    """An aggregate of somebody's own."""


ONE_KEY = "Limit the query to one shard key, or do this part in Python."


class Untyped(Field):
    """Django knows no type of it in any database."""

    def db_type(self, connection: Any) -> None:
        return None


OTHER_FIELDS = "Use other fields, or limit the query to one shard key."

REFUSED = {
    "extra": (
        lambda: orders().extra(where=["1 = 1"]),
        "raw SQL in a query",
        "Write it with Django's expressions.",
    ),
    "extra select": (
        lambda: orders().extra(select={"one": "1"}),
        "raw SQL in a query",
        "Write it with Django's expressions.",
    ),
    "extra tables": (
        lambda: orders().extra(tables=["shop_tag"]),
        "extra(tables=…)",
        "Query the models of those tables instead.",
    ),
    "extra tables of a subquery": (
        lambda: orders().filter(quantity__in=Line.objects.extra(tables=["shop_tag"]).values("amount")),
        "extra(tables=…)",
        "Query the models of those tables instead.",
    ),
    "RawSQL": (
        lambda: orders().annotate(one=RawSQL("1", ())),
        "raw SQL in a query",
        "Write it with Django's expressions.",
    ),
    "raw SQL in a window": (
        lambda: orders().annotate(n=Window(RowNumber(), order_by=RawSQL("1", ()))),
        "raw SQL in a query",
        "Write it with Django's expressions.",
    ),
    "locks and windows": (
        lambda: orders().annotate(n=Window(RowNumber())).select_for_update(),
        "select_for_update()",
        "Lock the rows by a query of their own.",
    ),
    "locks and aggregates": (
        lambda: orders().values("status").annotate(n=Count("id")).select_for_update(),
        "select_for_update()",
        "Lock the rows by a query of their own.",
    ),
}
GATHERED = {
    "a window": (lambda: orders().annotate(n=Window(RowNumber())), "a window function"),
    "a filter by a window": (
        lambda: orders().annotate(n=Window(RowNumber(), order_by="id")).filter(n=1),
        "a filter by a window function",
    ),
    "distinct on": (lambda: orders().order_by("status").distinct("status"), "distinct('status')"),
    "another aggregate": (lambda: orders().values("status").annotate(x=Median("total")), "Median()"),
    "a subclass of an aggregate": (lambda: orders().values("status").annotate(x=Twice("total")), "Twice()"),
    "an aggregate with options": (
        lambda: orders().values("status").annotate(x=Sum("total", function="MAX")),
        "Sum()",
    ),
    "an aggregate that Django does not know": (
        lambda: orders().annotate(n=Func("total", function="Max", output_field=FloatField())).values("n"),
        "MAX() in Func()",
    ),
    "a join to a global model": (
        lambda: fan_out(Customer.objects).filter(region__name="x"),
        "a join to a global model",
    ),
    "select_related": (lambda: fan_out(Customer.objects).select_related("region"), "a join to a global model"),
    "a subquery": (
        lambda: orders().filter(quantity__in=Line.objects.values("amount")),
        "the subquery over shop.Line",
    ),
    "a union": (lambda: orders().union(orders()), "union()"),
}
if servers.engine == "postgresql":
    from django.contrib.postgres.aggregates import BoolAnd

    class Every(BoolAnd):
        """One of somebody's own."""

    GATHERED |= {
        "order by what has no type": (
            lambda: orders().order_by(Func("status", function="lower", output_field=Untyped())),
            "the order of Func(), whose type is unknown",
        ),
        "distinct values without a type": (
            lambda: orders().values(x=Func("status", function="lower", output_field=Untyped())).distinct(),
            "DISTINCT over Func(), whose type is unknown",
        ),
        "Avg of text": (
            lambda: orders().values("status").annotate(a=Avg(Cast("status", TextField()), output_field=FloatField())),
            "Avg() over the type text",
        ),
        "StdDev of text": (
            lambda: (
                orders().values("status").annotate(a=StdDev(Cast("status", TextField()), output_field=FloatField()))
            ),
            "StdDev() over the type text",
        ),
        "bits of text": (
            lambda: orders().values("status").annotate(a=BitAnd("status")),
            "BitAnd() over the type varchar",
        ),
        "a subclass of PostgreSQL's aggregate": (
            lambda: orders().values("status").annotate(a=Every(Q(total=1))),
            "Every()",
        ),
    }


@pytest.mark.parametrize(("make", "construct", "remedy"), REFUSED.values(), ids=REFUSED.keys())
def test_refused(make: Any, construct: str, remedy: str) -> None:
    message = (
        f"The answers of several shards to this shop.Order query cannot be merged exactly because of {construct}. "
        f"{remedy}"
    )
    found = explain(make())
    assert (found.tier, found.reason, found.error) == (None, message, CannotMerge)
    with pytest.raises(CannotMerge, match=whole(message)) as caught:
        list(make())
    assert caught.value.construct == construct
    assert caught.value.model == "shop.Order"


@pytest.mark.parametrize(("make", "construct"), GATHERED.values(), ids=GATHERED.keys())
def test_gathered(make: Any, construct: str) -> None:
    found = explain(make())
    assert (found.tier, found.error) == (Tier.GATHER, None)
    assert found.reason == f"the rows are gathered in one place because of {construct}"


def test_planning_asks_no_table() -> None:
    for make in [make for made in (PLANS, GATHERED) for make, *_ in made.values()]:
        explain(make())


def test_the_text_of_a_query_asks_nothing() -> None:
    for alias in SHARDS:
        connections[alias].close()
    assert "ORDER BY" in str(orders().filter(Q(total=1)).order_by("status", F("total").desc()).query)

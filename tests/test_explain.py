"""``sharding.explain()``: what it prints of every kind of query, and that nothing is sent for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.models import Avg, Count, F, JSONField, Q, QuerySet, Sum, Window
from django.db.models.functions import Cast, RowNumber

import sharding
from aggregator import explain, fan_out
from sharding import ownership
from sharding.operations import explanation
from sharding.testing import cluster
from tests import servers
from tests.documents import ROOT, blocks
from tests.messages import whole
from tests.shop.models import Account, Country, Customer, Ledger, Line, Member, Order, Region

pytestmark = pytest.mark.django_db(databases="__all__")
SHARDS = "shard_a, shard_b, shard_c"


@pytest.fixture(scope="module", autouse=True)
def owners(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), cluster.owners(*servers.SHARDS):
        yield


def orders() -> QuerySet[Any]:
    return fan_out(Order.objects)


def printed(queryset: Any, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Return the lines that are printed, with one space where there are several."""
    assert sharding.explain(queryset) is None
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def at_all(why: str) -> list[str]:
    return ["Buckets any", f"Shards {SHARDS}", why.partition("|")[0], f"Why {why.partition('|')[2]}"]


ROWS = at_all("Tier merge|The filters do not limit tenant_id; the aggregator merges rows.")
GROUPS = at_all(
    "Tier partials|The filters do not limit tenant_id; the aggregator merges groups that may have rows on every shard."
)
ID = "id ascending, NULLs last, compared in Python"

QUERIES: dict[str, tuple[Callable[[], Any], list[str]]] = {
    "one key": (
        lambda: Account.objects.filter(pk="01920000-0000-7123-8000-000000000000", owner="it's"),
        [
            "Model shop.Account",
            "Buckets 291",
            "Shards shard_a",
            "Tier one shard",
            "Why The filters prove bucket 291, which 'shard_a' owns.",
            'SQL SELECT "shop_account"."bucket", "shop_account"."id", "shop_account"."owner" FROM "shop_account" WHERE '
            '("shop_account"."owner" = \'it\'\'s\' AND "shop_account"."id" = '
            "'01920000-0000-7123-8000-000000000000')",
        ],
    ),
    "a sorted slice with a join": (
        lambda: (
            orders()
            .filter(status="paid", quantity=None)
            .order_by("-created", "customer__name")
            .values_list("total")[100:150]
        ),
        [
            "Model shop.Order",
            *ROWS,
            'SQL SELECT "shop_order"."total" AS "total", "shop_order"."created", "shop_customer"."name", '
            '"shop_order"."id" FROM "shop_order" LEFT OUTER JOIN "shop_customer" ON ("shop_order"."customer_id" = '
            '"shop_customer"."id") WHERE ("shop_order"."quantity" IS NULL AND "shop_order"."status" = \'paid\') '
            'ORDER BY "shop_order"."created" DESC, "shop_customer"."name" ASC, "shop_order"."id" ASC LIMIT 150',
            "Columns total",
            "Hidden created, shop_customer.name, id, to merge by",
            "Merged by created descending, NULLs first, compared in Python",
            "shop_customer.name ascending, NULLs last, compared in Python, by code points",
            ID,
            "Slice rows 100 to 150 of the whole; each shard sends 150 at most",
        ],
    ),
    "rows to the end, NULLs elsewhere": (
        lambda: orders().order_by(F("weight").desc(nulls_last=True)).values_list("id")[7:],
        [
            "Model shop.Order",
            *ROWS,
            'SQL SELECT "shop_order"."id" AS "id", "shop_order"."weight" FROM "shop_order" '
            'ORDER BY "shop_order"."weight" DESC NULLS LAST, "shop_order"."id" DESC',
            "Columns id",
            "Hidden weight, to merge by",
            "Merged by weight descending, NULLs last, compared in Python",
            "id descending, NULLs first, compared in Python",
            "Slice rows from 7 on of the whole; each shard sends all",
        ],
    ),
    "ranks": (
        lambda: orders().annotate(data=Cast("status", JSONField())).order_by("data").values_list("data"),
        [
            "Model shop.Order",
            *ROWS,
            'SQL SELECT ("shop_order"."status")::jsonb AS "data" FROM "shop_order" ORDER BY 1 ASC',
            "Columns data",
            "Merged by data ascending, NULLs last, compared by the ranks that shard_a gives (jsonb)",
        ],
    ),
    "distinct": (
        lambda: orders().values_list("status").distinct(),
        [
            "Model shop.Order",
            *at_all(
                "Tier merge|The filters do not limit tenant_id; the aggregator merges rows, of which equal ones of "
                "different shards count once."
            ),
            'SQL SELECT DISTINCT "shop_order"."status" AS "status" FROM "shop_order"',
            "Columns status",
            "Distinct equal rows of different shards count once",
        ],
    ),
    "groups": (
        lambda: (
            orders()
            .values("status")
            .annotate(n=Count("id", filter=Q(status="new")), mean=Avg("total"))
            .filter(mean__gt=3)
            .order_by("-n")[:5]
        ),
        [
            "Model shop.Order",
            *GROUPS,
            'SQL SELECT "shop_order"."status" AS c0, COUNT("shop_order"."id") FILTER (WHERE "shop_order"."status" = '
            '\'new\') AS c1, SUM("shop_order"."total") AS c2, COUNT("shop_order"."total") AS c3 FROM "shop_order" '
            "GROUP BY 1",
            'Groups c0 = "shop_order"."status"',
            'Parts c1 = COUNT("shop_order"."id") FILTER (WHERE "shop_order"."status" = \'new\'), '
            'c2 = SUM("shop_order"."total"), c3 = COUNT("shop_order"."total")',
            "Finished on shard_a, where p has the rows of all shards",
            'SELECT (p.c0) AS "status", (CAST(COALESCE(SUM(p.c1), 0) AS type_of_c1)) AS "n", ((SUM(p.c2) / '
            "NULLIF(SUM(p.c3), 0))) AS \"mean\" FROM p GROUP BY p.c0 HAVING ((SUM(p.c2) / NULLIF(SUM(p.c3), 0))) > '3' "
            "ORDER BY 2 DESC, p.c0 LIMIT 5",
        ],
    ),
    "sums": (
        lambda: orders().values("status").annotate(n=Count("id")).order_by("status"),
        [
            "Model shop.Order",
            *GROUPS,
            'SQL SELECT "shop_order"."status" AS c0, COUNT("shop_order"."id") AS c1 FROM "shop_order" GROUP BY 1',
            'Groups c0 = "shop_order"."status"',
            'Parts c1 = COUNT("shop_order"."id")',
            "Finished in Python, by putting together the parts of each group",
        ],
    ),
    "several keys": (
        lambda: Line.objects.filter(tenant_id__in=[1, 42]).values_list("amount"),
        [
            "Model shop.Line",
            "Buckets 1236, 2612",
            "Shards shard_a, shard_c",
            "Tier merge",
            "Why The filters prove 2 buckets; the aggregator merges rows.",
            'SQL SELECT "shop_line"."amount" AS "amount" FROM "shop_line" WHERE "shop_line"."tenant_id" IN (1, 42)',
            "Columns amount",
        ],
    ),
    "no key": (
        lambda: Line.objects.values_list("amount"),
        [
            "Model shop.Line",
            "Buckets any",
            f"Shards {SHARDS}",
            "Tier merge, with fan_out()",
            "Why The filters do not limit tenant_id; the aggregator merges rows.",
            "Refused This Line query names no tenant_id, so its shard is unknown. Filter on tenant_id, or ask every "
            "shard with aggregator.fan_out().",
            'SQL SELECT "shop_line"."amount" AS "amount" FROM "shop_line"',
            "Columns amount",
        ],
    ),
    "a window": (
        lambda: orders().filter(status="paid").values_list(Window(RowNumber(), order_by=F("total").asc())),
        [
            "Model shop.Order",
            *at_all(
                "Tier gather|The filters do not limit tenant_id; the rows are gathered in one place because of a "
                "window function."
            ),
            'Gathered shop_order (status, total) WHERE "gathered"."status" = \'paid\'',
            "Finished on shard_a, where each of these has the rows of all shards",
            'SELECT ROW_NUMBER() OVER (ORDER BY "shop_order"."total" ASC) AS "window1" FROM "shop_order" WHERE '
            '"shop_order"."status" = \'paid\'',
        ],
    ),
    "a join to a global model": (
        lambda: fan_out(Customer.objects).values_list("region__name"),
        [
            "Model shop.Customer",
            *at_all(
                "Tier gather|The filters do not limit tenant_id; the rows are gathered in one place because of a "
                "join to a global model."
            ),
            "Gathered shop_customer (id, name, region_id)",
            "Finished on default, where each of these has the rows of all shards",
            'SELECT "shop_region"."name" AS "region__name" FROM "shop_customer" LEFT OUTER JOIN "shop_region" ON '
            '("shop_customer"."region_id" = "shop_region"."id")',
        ],
    ),
    "what cannot be merged": (
        lambda: orders().select_for_update().values("status").annotate(n=Count("id")),
        [
            "Model shop.Order",
            "Buckets any",
            "Shards -",
            "Tier -",
            "Why The filters do not limit tenant_id, and the answers of several shards cannot be merged.",
            "Refused The answers of several shards to this shop.Order query cannot be merged exactly because of "
            "select_for_update(). Lock the rows by a query of their own.",
        ],
    ),
    "an order that joins a global model": (
        lambda: Customer.objects.filter(tenant_id=42).order_by("region__name"),
        [
            "Model shop.Customer",
            "Buckets 1236",
            "Shards -",
            "Tier -",
            "Why The query reads more than rows of its own database.",
            "Refused This shop.Customer query joins 'shop_region', and sharded and global tables live on different "
            "servers. Ask for the related rows in a query of their own (for example by prefetch_related()).",
        ],
    ),
    "nothing": (
        lambda: Order.objects.none(),
        [
            "Model shop.Order",
            "Buckets none",
            "Shards -",
            "Tier no query",
            "Why The filters match no row, so no database is asked.",
        ],
    ),
    "a filter of nothing": (lambda: orders().filter(status__in=[]), ["Model shop.Order", *ROWS]),
    "groups of nothing": (
        lambda: orders().filter(status__in=[]).values("status").annotate(n=Sum("total")),
        ["Model shop.Order", *GROUPS],
    ),
    "a lookup": (
        lambda: Member.objects.filter(email="nobody@x"),
        [
            "Model shop.Member",
            "Buckets none",
            "Shards -",
            "Tier no query",
            "Why The lookup shop_member_email_lookup has no such entry, so no shard is asked.",
        ],
    ),
    "one shard by name": (
        lambda: Ledger.objects.using("shard_b").values_list("text"),
        [
            "Model shop.Ledger",
            "Databases shard_b",
            "Tier one database",
            "Why using('shard_b') asks this shard alone, for the rows that are there.",
            'SQL SELECT "shop_ledger"."text" AS "text" FROM "shop_ledger"',
        ],
    ),
    "a global model": (
        lambda: Region.objects.filter(name="x"),
        [
            "Model shop.Region",
            "Databases default",
            "Tier one database",
            "Why shop.Region is a global model, whose rows are in the control database, 'default'.",
            'SQL SELECT "shop_region"."id", "shop_region"."name" FROM "shop_region" WHERE "shop_region"."name" = \'x\'',
        ],
    ),
    "a manager, and a global model elsewhere": (
        lambda: Region.objects.db_manager("reference"),
        [
            "Model shop.Region",
            "Databases reference",
            "Tier one database",
            "Why shop.Region is a global model, and the routers or using() say 'reference'.",
            'SQL SELECT "shop_region"."id", "shop_region"."name" FROM "shop_region"',
        ],
    ),
    "a global model that joins a sharded one": (
        lambda: Region.objects.filter(customers__name="x"),
        [
            "Model shop.Region",
            "Shards -",
            "Tier -",
            "Why The query reads more than rows of its own database.",
            "Refused This shop.Region query joins 'shop_customer', and sharded and global tables live on different "
            "servers. Ask for the related rows in a query of their own (for example by prefetch_related()).",
        ],
    ),
    "a reference model": (
        lambda: Country.objects.values_list("code"),
        [
            "Model shop.Country",
            "Databases default",
            "Tier one database",
            "Why shop.Country is a reference model, of which every shard has all rows; 'default' answers for itself.",
            'SQL SELECT "shop_country"."code" AS "code" FROM "shop_country"',
        ],
    ),
}


@pytest.mark.parametrize(("make", "expected"), QUERIES.values(), ids=QUERIES)
def test_what_is_printed(make: Any, expected: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(make(), capsys) == expected


def test_the_statement_is_the_one_that_is_sent(capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a sorted slice with a join", "rows to the end, NULLs elsewhere", "ranks", "distinct"):
        make = QUERIES[name][0]
        found = explain(make())
        [statement] = found.steps.statements
        sent: list[tuple[str, tuple[Any, ...]]] = []

        def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
            sent.append((sql, tuple(params or ())))  # noqa: B023 - called at once
            return execute(sql, params, many, context)

        with connections["shard_b"].execute_wrapper(wrapper):
            list(make())
        assert [ownership.as_asked(*each) for each in sent] == [(statement.sql, statement.params)]
        assert statement.databases == tuple(servers.SHARDS)


def test_partial_results_are_the_ones_that_are_sent() -> None:
    found = explain(QUERIES["groups"][0]())
    [statement] = found.steps.statements
    assert found.steps.finishing is not None
    sent: list[str] = []

    def wrapper(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
        sent.append(ownership.as_asked(sql, params or ())[0])
        return execute(sql, params, many, context)

    with connections["shard_b"].execute_wrapper(wrapper), connections["shard_a"].execute_wrapper(wrapper):
        list(QUERIES["groups"][0]())
    assert sum(statement.sql in sql for sql in sent) == 2
    assert sum(found.steps.finishing.sql.replace("type_of_c1", "bigint") in sql for sql in sent) == 1


def test_inside_a_scope(capsys: pytest.CaptureFixture[str]) -> None:
    with sharding.scope(42, of=Line):
        assert printed(Line.objects.values_list("amount"), capsys) == [
            "Model shop.Line",
            "Buckets 1236",
            "Shards shard_a",
            "Tier one shard",
            "Why The filters prove bucket 1236, which 'shard_a' owns.",
            'SQL SELECT "shop_line"."amount" AS "amount" FROM "shop_line" WHERE "shop_line"."tenant_id" = 42',
        ]
        assert printed(Line.objects.filter(tenant_id=1), capsys)[:5] == [
            "Model shop.Line",
            "Buckets any",
            "Shards -",
            "Tier -",
            "Why A scope is open, and the query is not of its shard key.",
        ]


def test_text_of_what_the_aggregator_explains() -> None:
    assert str(explain(fan_out(Line.objects).values_list("amount"))).splitlines() == [
        "Buckets  any",
        f"Shards   {SHARDS}",
        "Tier     merge: rows",
        'SQL      SELECT "shop_line"."amount" AS "amount" FROM "shop_line"',
        "Columns  amount",
    ]
    assert str(explain(Line.objects.all())) == (
        "Refused  ShardKeyMissing: This Line query names no tenant_id, so its shard is unknown. Filter on tenant_id, "
        "or ask every shard with aggregator.fan_out()."
    )
    assert str(explain(Line.objects.filter(tenant_id=42).values_list("amount"))).splitlines() == [
        "Buckets  1236",
        "Shards   shard_a",
        "Tier     one shard: every row is in bucket 1236",
        'SQL      SELECT "shop_line"."amount" AS "amount" FROM "shop_line" WHERE "shop_line"."tenant_id" = 42',
    ]
    assert str(explain(Line.objects.none())).splitlines() == [
        "Buckets  none",
        "Shards   none",
        "Tier     one shard: no row can match",
    ]


@pytest.mark.django_db(databases="__all__", transaction=True)
@pytest.mark.parametrize("name", ["a sorted slice with a join", "groups", "a window"])
def test_one_shard_sends_what_django_would(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    queryset = QUERIES[name][0]()
    with cluster.owners("shard_b"):
        found = printed(queryset, capsys)
    assert found[2] == "Shards shard_b"
    assert found[-1].startswith("SQL SELECT")
    assert (" OFFSET 100" in found[-1]) == (name == "a sorted slice with a join")


def test_what_is_no_queryset() -> None:
    message = "explain() takes a queryset or a manager, such as Order.objects, not 'shop.Order'."
    with pytest.raises(TypeError, match=whole(message)):
        sharding.explain("shop.Order")  # type: ignore[arg-type]


def test_nothing_is_sent(django_assert_num_queries: Any) -> None:
    for make, _ in QUERIES.values():
        if "lookup" not in make().model._meta.label_lower:
            explanation.explanation_of(make())
    for alias in servers.SHARDS:
        with django_assert_num_queries(0, connection=connections[alias]):
            for make, _ in QUERIES.values():
                explanation.explanation_of(make())


def test_the_queryset_is_left_as_it_was() -> None:
    for name in ("a sorted slice with a join", "groups"):
        queryset = QUERIES[name][0]()
        refcounts = dict(queryset.query.alias_refcount)
        explanation.explanation_of(queryset)
        assert dict(queryset.query.alias_refcount) == refcounts
        assert list(queryset) == []


def test_the_example_of_the_documentation(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "topics" / "fan-out.md"
    [code] = [each for each in blocks(page, "python") if "import explain" in each.text]
    [shown] = [each for each in blocks(page, "text") if each.text.startswith("Model")]
    exec(code.text, {"Order": Order})
    assert capsys.readouterr().out.split() == shown.text.split()

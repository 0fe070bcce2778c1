"""The command `shards explain`: where a query goes, why, and that nothing is sent."""

from __future__ import annotations

import json

import pytest
from django.db import DEFAULT_DB_ALIAS, connections

from sharding import cluster_map
from sharding.control import Cluster
from sharding.operations import explanation
from tests.shards.command import ALIASES, ROLLED_BACK, SHARDS, lines, refused, run


@ROLLED_BACK
def test_explain_one_shard():
    printed = lines(run("explain", "shop.Order", "tenant_id=42", "status=it's"))
    assert lines(run("explain", "shop.Order", "tenant_id=42", "status=it's", "--sql")) == [
        *printed,
        'SQL      SELECT "shop_order"."bucket", "shop_order"."id", "shop_order"."tenant_id", '
        '"shop_order"."customer_id", "shop_order"."status", "shop_order"."total", "shop_order"."quantity", '
        '"shop_order"."weight", "shop_order"."created" FROM "shop_order" WHERE ("shop_order"."status" = \'it\'\'s\' '
        'AND "shop_order"."tenant_id" = 42)',
    ]
    assert printed == [
        """Query    shop.Order.objects.filter(tenant_id='42', status="it's")""",
        "Buckets  1236",
        "Shards   shard_a",
        "Tier     one shard",
        "Why      The filters prove bucket 1236, which 'shard_a' owns.",
    ]


def explained(*arguments):
    data = json.loads(run("explain", *arguments, "--json"))
    return {name: data[name] for name in ("buckets", "shards", "tier", "why", "refusal")}


@ROLLED_BACK
def test_explain_as_json():
    data = json.loads(run("explain", "shop.Order", "tenant_id=42", "--json"))
    steps = data.pop("steps")
    [statement] = steps.pop("statements")
    assert not any(steps.values())
    assert statement.pop("sql").endswith('FROM "shop_order" WHERE "shop_order"."tenant_id" = %s')
    assert statement == {"databases": ["shard_a"], "params": [42]}
    assert data == {
        "model": "shop.Order",
        "filters": {"tenant_id": "42"},
        "buckets": [1236],
        "shards": ["shard_a"],
        "epoch": Cluster.objects.using(DEFAULT_DB_ALIAS).get().epoch,
        "tier": "one shard",
        "why": "The filters prove bucket 1236, which 'shard_a' owns.",
        "refusal": None,
    }


@ROLLED_BACK
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (
            ["shop.order", "tenant_id__in=42,1", "created__isnull=true"],
            {
                "buckets": [1236, 2612],
                "shards": ["shard_a", "shard_c"],
                "tier": "merge",
                "why": "The filters prove 2 buckets; the aggregator merges rows.",
                "refusal": None,
            },
        ),
        (
            ["shop.Order", "status=paid"],
            {
                "buckets": None,
                "shards": SHARDS,
                "tier": "merge",
                "why": "The filters do not limit tenant_id; the aggregator merges rows.",
                "refusal": "This Order query names no tenant_id, so its shard is unknown. Filter on tenant_id, or ask "
                "every shard with aggregator.fan_out().",
            },
        ),
        (
            ["shop.Order", "tenant_id__in="],
            {
                "buckets": [],
                "shards": [],
                "tier": "no query",
                "why": "The filters match no row, so no database is asked.",
                "refusal": None,
            },
        ),
        (
            ["shop.Order", "tenant_id=42", "customer__region__name=x"],
            {
                "buckets": [1236],
                "shards": [],
                "tier": None,
                "why": "The query reads more than rows of its own buckets.",
                "refusal": "This shop.Order query joins 'shop_region', and sharded and global tables live on different "
                "servers. Ask for the related rows in a query of their own (for example by prefetch_related()).",
            },
        ),
    ],
    ids=["several", "any", "none", "join"],
)
def test_explain(arguments, expected):
    assert explained(*arguments) == expected


@ROLLED_BACK
def test_explain_a_query_of_one_shard_that_matches_no_row():
    data = json.loads(run("explain", "shop.Order", "tenant_id=42", "status__in=", "--json"))
    assert (data["shards"], data["tier"], data["steps"]["statements"]) == (["shard_a"], "one shard", [])


@ROLLED_BACK
def test_explain_says_what_needs_the_opt_in():
    printed = lines(run("explain", "shop.Order", "status=paid", "--order-by=-created"))
    assert [" ".join(line.split()) for line in printed[1:]] == [
        "Buckets any",
        "Shards shard_a, shard_b, shard_c",
        "Tier merge, with fan_out()",
        "Why The filters do not limit tenant_id; the aggregator merges rows.",
        "Refused This Order query names no tenant_id, so its shard is unknown. Filter on tenant_id, or ask every shard "
        "with aggregator.fan_out().",
        "Columns bucket, id, tenant_id, customer, status, total, quantity, weight, created",
        "Merged by created descending, NULLs first, compared in Python",
    ]
    assert run("explain", "shop.Order", "status=paid", "--order-by=-created", "--sql").count("ORDER BY") == 1


@ROLLED_BACK
def test_explain_a_global_model():
    assert lines(run("explain", "shop.Region", "name=x")) == [
        "Query      shop.Region.objects.filter(name='x')",
        "Databases  default",
        "Tier       one database",
        "Why        shop.Region is a global model, whose rows are in the control database, 'default'.",
    ]


@ROLLED_BACK
def test_explain_names_no_more_buckets_than_fit():
    printed = lines(run("explain", "shop.Order", f"tenant_id__in={','.join(map(str, range(30)))}"))
    assert printed[1].endswith(" and 18 more")


@ROLLED_BACK
def test_explain_without_an_aggregator(monkeypatch):
    monkeypatch.setattr(explanation, "_planner", None)
    assert explained("shop.Order", "tenant_id__in=42,1") == {
        "buckets": [1236, 2612],
        "shards": [],
        "tier": None,
        "why": "The filters prove 2 buckets, and nothing is installed that merges answers.",
        "refusal": "Add 'aggregator' to INSTALLED_APPS.",
    }


@ROLLED_BACK
def test_explain_what_cannot_be_merged(monkeypatch):
    refusal = explanation.Explanation("", None, (), 0, None, "")
    planned = type("Planned", (), {"tier": None, "reason": "No tier answers it."})
    monkeypatch.setattr(explanation, "_planner", lambda queryset: planned if queryset.query.fan_out else refusal)
    assert explained("shop.Order", "status=paid") == {
        "buckets": None,
        "shards": [],
        "tier": None,
        "why": "The filters do not limit tenant_id, and the answers of several shards cannot be merged.",
        "refusal": "No tier answers it.",
    }


@ROLLED_BACK
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (
            ["shop.Nope"],
            "'shop.Nope' is no model. Write its label, such as shop.Order. (App 'shop' doesn't have a 'Nope' model.)",
        ),
        (["Order"], "'Order' is no model. Write its label, such as shop.Order."),
        (
            ["shop.Line", "nope=1"],
            "shop.Line cannot be filtered so: Cannot resolve keyword 'nope' into field. Choices are: amount, bucket, "
            "id, order, order_id, product, tenant_id",
        ),
        (
            ["shop.Line", "tenant_id=x"],
            "shop.Line cannot be filtered so: Field 'tenant_id' expected a number but got 'x'.",
        ),
        (["shop.Order", "id=1"], "shop.Order cannot be filtered so: “1” is not a valid UUID."),
        (
            ["shop.Order", "tenant_id"],
            "Error: argument LOOKUP=VALUE: 'tenant_id' is not of the form LOOKUP=VALUE.",
        ),
        (
            ["shop.Order", "tenant_id=1", "status=new", "tenant_id=2"],
            "The query names the lookup 'tenant_id' twice. Keep one of them.",
        ),
        *(
            (
                ["shop.Order", f"tenant_id__range={value}"],
                f"Error: argument LOOKUP=VALUE: 'tenant_id__range={value}' does not hold two values. Write "
                f"tenant_id__range=FROM,TO.",
            )
            for value in ("", "1", "1,2,3")
        ),
    ],
)
def test_explain_with_bad_input(arguments, complaint):
    assert refused("explain", *arguments)[1] == complaint


@ROLLED_BACK
def test_explain_sends_nothing(django_assert_num_queries):
    cluster_map.current()
    for alias in ALIASES:
        with django_assert_num_queries(0, connection=connections[alias]):
            run("explain", "shop.Order", "status=paid")


@ROLLED_BACK
def test_no_line_is_filled_up_to_the_longest():
    printed = run("explain", "shop.Order", "tenant_id=42", "--sql").splitlines()
    assert len(printed) > 5
    assert printed == [line.rstrip() for line in printed]

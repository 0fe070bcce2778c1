"""The command `shards audit`: rows that were put wrong on purpose are found, and only buckets are repaired."""

from __future__ import annotations

import io
import json
import sys

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS, connections
from django.test.utils import CaptureQueriesContext

from aggregator import fan_out
from sharding import bucket_of, cluster_map, registry, routing, shard_of
from sharding.control import BucketOwner
from sharding.operations import audit, audit_report
from tests.layouts import tenant_on
from tests.messages import whole
from tests.shards.command import ALIASES, ROLLED_BACK, SHARDS, execute, lines, refused, run
from tests.shop.models import Account, Device, Ledger, Line, Order
from tests.unfenced import unfenced


@pytest.fixture
def rows(db):
    """Rows of all kinds of ids, each on its owner."""
    for tenant_id in range(40):
        Order.objects.create(tenant_id=tenant_id)
    Line.objects.create(tenant_id=5, order=Order.objects.get(tenant_id=5))
    Ledger.objects.create(tenant_id=5, number=1)
    Account.objects.create(owner="x")
    Device.objects.create(serial="d-1")


@ROLLED_BACK
def test_audit_of_a_sound_cluster(rows, monkeypatch):
    monkeypatch.setattr(audit, "BATCH", 3)
    assert lines(run("audit")) == [
        f"44 rows of 48 tables, compared with epoch {cluster_map.current().epoch} of the map.",
        "9 copies of reference tables, compared with the control database's rows.",
        "Every row is where it belongs.",
    ]
    assert json.loads(run("audit", "--model", "shop.ledger", "--json")) == {
        "sound": True,
        "epoch": cluster_map.current().epoch,
        "tables": 4,
        "rows": 1,
        "wrong": 0,
        "repaired": 0,
        "unreachable": {},
        "without_table": {},
        "findings": [],
        "copies": 0,
        "drifts": [],
    }


@ROLLED_BACK
@pytest.mark.parametrize("size", [1, 2, 3, 7, 100])
@pytest.mark.parametrize("model", [Order, Ledger])
def test_every_row_is_met_once_whatever_the_batch(model, size):
    for number in range(7):
        model.objects.create(tenant_id=42, **({"number": number} if model is Ledger else {}))
    steps = list(audit.audit(registry.get(model), "shard_a", cluster_map.current(), size=size))
    assert sum(step.rows for step in steps) == 7
    assert max(step.rows for step in steps) == min(size, 7)


@ROLLED_BACK
def test_audit_finds_a_row_on_a_shard_that_does_not_own_it(rows):
    order = Order.objects.get(tenant_id=42 - 5)
    owner, other = shard_of(order), next(alias for alias in SHARDS if alias != shard_of(order))
    with routing.native(other), unfenced(other, "shop_order"):
        Order(id=order.id, tenant_id=order.tenant_id, bucket=order.bucket).save(using=other, force_insert=True)
    printed, complaint = refused("audit")
    assert complaint == "Not all rows are where they belong: 1 finding."
    assert lines(printed)[3:] == [
        "model        database   rows   what is wrong",
        "────────────────────────────────────────────────────────────────",
        f"shop.Order   {other}       1   the shard does not own the bucket",
        "",
        "For example:",
        f"  shop.Order {order.id} on {other}, key 37: belongs to {owner}",
    ]


@ROLLED_BACK
def test_audit_finds_a_wrong_bucket_and_repairs_it():
    key = 42
    Ledger.objects.create(tenant_id=key, number=1)
    Ledger.objects.create(tenant_id=key, number=2)
    execute("shard_a", "UPDATE shop_ledger SET bucket = 0 WHERE number = 2")
    data = json.loads(refused("audit", "--json", "--model", "shop.Ledger")[0])
    assert data["findings"] == [
        {
            "model": "shop.Ledger",
            "database": "shard_a",
            "kind": "bucket",
            "rows": 1,
            "repaired": 0,
            "examples": [{"id": [42, 2], "key": 42, "field": "bucket", "found": 0, "expected": 1236}],
        }
    ]
    printed = lines(run("audit", "--repair"))
    assert printed[3:] == [
        "model         database   rows   what is wrong",
        "──────────────────────────────────────────────────────────────────────────────",
        "shop.Ledger   shard_a       1   the stored bucket is not that of the shard key",
        "",
        "For example:",
        "  shop.Ledger (42, 2) on shard_a, key 42: bucket says bucket 0, the key says 1236",
        "",
        "Stored buckets put right: 1.",
    ]
    assert max(map(len, printed)) <= 82
    assert set(Ledger.objects.filter(tenant_id=42).values_list("bucket", flat=True)) == {1236}
    assert run("audit").endswith("Every row is where it belongs.\n")


@ROLLED_BACK
@pytest.mark.parametrize(("at_once", "statements"), [(200, 1), (2, 3)])
def test_many_buckets_are_repaired_by_few_statements(monkeypatch, at_once, statements):
    """In an adopted table, all rows have the bucket 0, and hardly two of them belong into the same."""
    monkeypatch.setattr(audit, "AT_ONCE", at_once)
    tenants = [tenant_on("shard_a", number) for number in range(5)]
    for tenant in tenants:
        Ledger.objects.create(tenant_id=tenant, number=1)
    execute("shard_a", "UPDATE shop_ledger SET bucket = 0")
    with CaptureQueriesContext(connections["shard_a"]) as sent:
        run("audit", "--repair", "--model", "shop.Ledger")
    assert sum(each["sql"].startswith("UPDATE") for each in sent) == statements
    assert {each.tenant_id: each.bucket for each in fan_out(Ledger.objects)} == {
        tenant: bucket_of(tenant, model=Ledger) for tenant in tenants
    }


@ROLLED_BACK
def test_audit_never_repairs_what_the_id_contradicts(rows):
    order = Order.objects.get(tenant_id=5)
    execute(shard_of(order), "UPDATE shop_order SET tenant_id = 1 WHERE id = %s", order.id)
    data = json.loads(refused("audit", "--json", "--repair", "--model", "shop.Order")[0])
    found = {each["kind"]: each["examples"][0] for each in data["findings"]}
    assert {"bucket", "id"} <= found.keys()
    assert data["repaired"] == 0
    expected = registry.get(Order).bucket_of_key(1)
    assert found["id"] == {
        **{"id": str(order.id), "key": 1, "field": "id"},
        **{"found": order.bucket, "expected": expected},
    }
    with routing.native(shard_of(order)):
        assert Order.objects.using(shard_of(order)).get(id=order.id).bucket == order.bucket


@ROLLED_BACK
def test_audit_finds_a_reference_to_another_bucket(rows):
    order, line = Order.objects.get(tenant_id=5), Line.objects.get(tenant_id=5)
    other = next(
        each
        for each in (Order.objects.get(tenant_id=key) for key in range(6, 40))
        if shard_of(each) == shard_of(order) and each.bucket != order.bucket
    )
    execute(shard_of(line), "UPDATE shop_line SET order_id = %s WHERE id = %s", other.id, line.id)
    printed, _ = refused("audit", "--model", "shop.Line")
    assert lines(printed)[-1] == (
        f"  shop.Line {line.id} on {shard_of(line)}, key 5: order says bucket {other.bucket}, the key says "
        f"{order.bucket}"
    )


@ROLLED_BACK
def test_audit_finds_a_key_without_a_bucket(rows):
    execute("shard_b", "ALTER TABLE shop_customer ALTER tenant_id DROP NOT NULL")
    with unfenced("shard_b", "shop_customer"):
        execute(
            "shard_b",
            "INSERT INTO shop_customer (id, bucket, name, email) "
            "VALUES ('018bcfe5-6800-7000-9a3c-5d1f0e6b7a28', 0, '', '')",
        )
    printed, _ = refused("audit", "--model", "shop.Customer")
    assert lines(printed)[-1] == (
        "  shop.Customer 018bcfe5-6800-7000-9a3c-5d1f0e6b7a28 on shard_b, key None: the shard key has no bucket"
    )


@ROLLED_BACK
def test_audit_looks_at_default_too():
    Ledger.objects.create(tenant_id=42, number=1)
    with routing.native("default"), unfenced("default", "shop_ledger"):
        Ledger(tenant_id=42, number=2, bucket=1236).save(using="default", force_insert=True)
    [finding] = json.loads(refused("audit", "--json")[0])["findings"]
    assert (finding["database"], finding["kind"], finding["rows"]) == ("default", "owner", 1)


@ROLLED_BACK
@pytest.mark.usefixtures("blank")
def test_audit_without_a_map():
    assert refused("audit")[1] == (
        "The control database holds no bucket map, but there are shards: shard_a, shard_b, shard_c. Run "
        "`manage.py migrate_all` and then `manage.py shards init`."
    )


@ROLLED_BACK
def test_audit_of_a_model_that_is_not_sharded():
    assert refused("audit", "--model", "shop.Region")[1] == (
        "shop.Region is not sharded. Inherit from sharding.models.ShardedModel to shard it."
    )


def test_a_command_without_a_subcommand():
    with pytest.raises(
        CommandError,
        match=whole(
            "Error: the following arguments are required: init|status|explain|audit|lookup|recover|deadlocks|certify"
        ),
    ):
        call_command("shards")


class Terminal(io.StringIO):
    def isatty(self):
        return True


@ROLLED_BACK
@pytest.mark.parametrize("verbosity", [0, 1])
def test_audit_shows_its_progress_on_a_terminal(rows, monkeypatch, verbosity):
    drawn = Terminal()
    monkeypatch.setattr(sys, "stderr", drawn)
    monkeypatch.setenv("TERM", "xterm")
    call_command("shards", "audit", stdout=io.StringIO(), stderr=Terminal(), verbosity=verbosity)
    assert ("Auditing" in drawn.getvalue()) is bool(verbosity)


@ROLLED_BACK
def test_the_expected_rows_are_the_planners(rows):
    for alias in ALIASES:
        execute(alias, "ANALYZE shop_order")
        execute(alias, "ANALYZE shop_ledger")
    assert audit_report.expected_rows(["shop.Order"]) == 40
    assert audit_report.expected_rows(["shop.Order", "shop.Ledger"]) == 41
    execute("shard_b", "CREATE TABLE renamed (LIKE shop_ledger)")
    execute("shard_b", "DROP TABLE shop_ledger")
    execute("shard_b", "ALTER TABLE renamed RENAME TO shop_ledger")
    execute("shard_b", "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (0, 1, 1, '')")
    assert audit_report.expected_rows(["shop.Ledger"]) is None


@ROLLED_BACK
def test_audit_names_an_owner_that_is_not_declared():
    for alias in ALIASES:
        execute(alias, "ANALYZE shop_order")
    BucketOwner.objects.using(DEFAULT_DB_ALIAS).filter(bucket__lt=7).update(shard="shard_d")
    cluster_map.forget()
    printed, complaint = refused("audit")
    assert complaint == "Not every database was audited: shard_d."
    assert lines(printed)[1] == "shard_d does not answer: It is not in DATABASES, and its rows are there."
    assert audit_report.expected_rows(["shop.Order"]) == 0


@ROLLED_BACK
def test_audit_names_an_owner_without_the_table_of_a_model():
    """Its rows are not where they belong, wherever else they may be."""
    execute("shard_b", "ALTER TABLE shop_ledger RENAME TO shop_elsewhere")
    printed, complaint = refused("audit", "--model", "shop.Ledger")
    assert complaint == "Not every database was audited: shard_b."
    assert lines(printed)[1:] == ["shard_b has no table of shop.Ledger. Run `manage.py migrate_all`."]
    data = json.loads(refused("audit", "--json")[0])
    assert (data["sound"], data["without_table"]) == (False, {"shard_b": ["shop.Ledger"]})


@ROLLED_BACK
def test_a_view_of_a_sharded_model_is_no_missing_table():
    """It shows rows that are audited in their own tables."""
    for alias in ALIASES:
        execute(alias, "ALTER TABLE shop_ledger RENAME TO shop_elsewhere")
        execute(alias, "CREATE VIEW shop_ledger AS SELECT * FROM shop_elsewhere")
    assert lines(run("audit", "--model", "shop.Ledger"))[-1] == "Every row is where it belongs."
    # The triggers of the table that was renamed are another problem.
    assert "no table" not in refused("status")[0]


@pytest.mark.django_db(databases=ALIASES, transaction=True)
def test_a_shard_that_is_down_has_no_expected_rows():
    for alias in ("default", "shard_a", "shard_c"):
        execute(alias, "ANALYZE shop_order")
    connection = connections["shard_b"]
    connection.close()
    port = connection.settings_dict["PORT"]
    connection.settings_dict["PORT"] = "1"
    try:
        assert audit_report.expected_rows(["shop.Order"]) == 0
    finally:
        connection.settings_dict["PORT"] = port

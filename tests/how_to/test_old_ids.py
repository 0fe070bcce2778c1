"""
Tables with rows whose numbers become ids that hold their bucket, by the statements of the page on adopting.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from sharding.hashing import bucket_of
from tests.documents import ROOT, blocks
from tests.garden import running_servers
from tests.migrating_project import Project, postgresql_databases

__all__ = ["running_servers"]

pytestmark = pytest.mark.db

PAGE = ROOT / "docs" / "topics" / "adopting.md"
KEYS, IDS, *_ = (block.text for block in blocks(PAGE, "sql"))
(FILL,) = (block.text for block in blocks(PAGE, "python") if "def fill(" in block.text)

BEFORE = """
    migrations.CreateModel("Order", [
        ("id", models.BigAutoField(primary_key=True)), ("tenant_id", models.IntegerField())]),
    migrations.CreateModel("Line", [
        ("id", models.BigAutoField(primary_key=True)), ("amount", models.IntegerField()),
        ("order", models.ForeignKey("orders.Order", models.CASCADE))]),
"""
SHARDED = """
    migrations.AddField("line", "tenant_id", models.IntegerField(null=True)),
    migrations.AddField("order", "bucket", BucketField(null=True)),
    migrations.AddField("line", "bucket", BucketField(null=True)),
    migrations.AlterField("line", "order", models.ForeignKey("orders.Order", models.CASCADE, db_constraint=False)),
    migrations.RunSQL(KEYS),
    migrations.RunPython(fill),
    migrations.RunSQL("UPDATE orders_line AS l SET bucket = o.bucket FROM orders_order AS o WHERE o.id = l.order_id"),
    migrations.AlterField("line", "tenant_id", models.IntegerField()),
    migrations.AlterField("order", "bucket", BucketField()),
    migrations.AlterField("line", "bucket", BucketField()),
    migrations.RunSQL(IDS),
    migrations.AlterField("order", "id", ShardBigIntegerField(primary_key=True, serialize=False)),
    migrations.AlterField("line", "id", ShardBigIntegerField(primary_key=True, serialize=False)),
    migrations.AlterField("line", "order", models.ForeignKey("orders.Order", models.CASCADE)),
"""
MODELS = """
from django.db import models
from sharding.fields import ShardBigIntegerField
from sharding.models import ShardedModel

class Order(ShardedModel):
    shard_key = "tenant_id"
    id = ShardBigIntegerField(primary_key=True)
    tenant_id = models.IntegerField()

class Line(ShardedModel):
    shard_key = "tenant_id"
    id = ShardBigIntegerField(primary_key=True)
    tenant_id = models.IntegerField()
    order = models.ForeignKey(Order, models.CASCADE)
    amount = models.IntegerField()
"""
TENANTS = (1, 2, 3)
#: What the order 1 gets, and an old order has.
TAKEN = 1 << 22 | bucket_of(TENANTS[0], 4096)
OLD = (1, 2, 3, TAKEN)


@pytest.fixture
def old(running_servers: None, tmp_path: Path) -> Iterator[Project]:
    """A project on one database, with rows from before its models were sharded."""
    with postgresql_databases("default") as addresses:
        made = Project(tmp_path, addresses)
        made.configure("orders")
        made.migration("orders", "0001_initial", BEFORE)
        made.succeed("migrate", "-v", "0")
        for number, tenant in zip(OLD, (*TENANTS, TENANTS[1]), strict=True):
            made.ask("default", f"INSERT INTO orders_order (id, tenant_id) VALUES ({number}, {tenant})")
            made.ask("default", f"INSERT INTO orders_line (order_id, amount) VALUES ({number}, {number})")
        yield made


def test_numbers_become_ids(old: Project) -> None:
    old.write("orders/models.py", MODELS)
    more = f"KEYS, IDS = {KEYS!r}, {IDS!r}\n{FILL.partition('class Migration')[0]}"
    old.migration(
        "orders", "0002_sharded", SHARDED, after=["0001_initial", "sharding.0007_moves"], more=f"ATOMIC = False\n{more}"
    )
    old.succeed("migrate", "-v", "0")
    printed = old.run(
        """
        from orders.models import Line, Order
        from sharding import bucket_of
        for tenant in (1, 2, 3):
            for number in Order.objects.filter(tenant_id=tenant).order_by("id").values_list("pk", flat=True):
                order = Order.objects.get(pk=number)
                assert number & 4095 == order.bucket == bucket_of(tenant, model=Order)
                (line,) = order.line_set.all()
                print(number >> 22, line.amount, line.tenant_id, line.id >> 22)
        print((Order.objects.create(tenant_id=2).pk >> 22) > max(OLD))
        """.replace("OLD", str(OLD))
    )
    assert printed.splitlines() == ["1 1 1 1", "2 2 2 2", f"{TAKEN} {TAKEN} 2 4", "3 3 3 3", "True"]
    assert old.succeed("shards", "audit").endswith("Every row is where it belongs.\n")
    # As the page says, the index is all that is left.
    left = old.manage("makemigrations", "--check", "--dry-run")[1].splitlines()[2:]
    assert [line.split(" orders_")[0].strip() for line in left] == ["+ Create index"] * 2

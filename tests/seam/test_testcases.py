"""
Django's own test classes over sharded rows: class data, isolation between tests, and flushing every database.
"""

from __future__ import annotations

from typing import ClassVar

import pytest
from django.db import connections, transaction
from django.test import TestCase, TransactionTestCase

from sharding import routing
from sharding.errors import CrossShardQuery, ShardKeyMissing
from sharding.testing.cluster import owners
from sharding.testing.statements import ShardedTestCaseMixin
from tests.blocks import undone
from tests.fan_out import no_aggregator
from tests.layouts import CLUSTER, LAYOUTS, Layout, tenant_on
from tests.shop.models import Order, Region

pytestmark = pytest.mark.usefixtures("three_shards")


def rows_everywhere() -> int:
    """Count the orders that each database itself holds."""
    total = 0
    for alias in CLUSTER:
        with routing.native(alias):
            total += Order.objects.count()
    return total


class ClassData:
    databases: ClassVar = set(CLUSTER)
    layout: Layout
    order: Order
    other: Order
    region: Region

    @classmethod
    def setUpClass(cls) -> None:
        cls.enterClassContext(owners(*cls.layout.owners))  # type: ignore[attr-defined]
        super().setUpClass()  # type: ignore[misc]

    @classmethod
    def setUpTestData(cls) -> None:
        # Rows on two shards and in the control database, in the class's atomic block.
        cls.order = Order.objects.create(tenant_id=tenant_on(cls.layout.home), status="class")
        cls.other = Order.objects.create(tenant_id=tenant_on(cls.layout.away or cls.layout.home, 1), status="class")
        cls.region = Region.objects.create(name="class")

    def test_one_changes_what_the_other_must_not_see(self) -> None:
        self.order.status = "changed"
        self.order.save()
        self.other.delete()
        Region.objects.update(name="changed")
        assert rows_everywhere() == 1

    def test_sees_the_class_data(self) -> None:
        self.order.refresh_from_db()
        self.other.refresh_from_db()
        assert {self.order.status, self.other.status} == {"class"}
        assert Region.objects.get(name="class") == self.region
        assert rows_everywhere() == 2

    def test_blocks_inside_a_test(self) -> None:
        with undone():
            self.order.status = "lost"
            self.order.save()
            Region.objects.create(name="lost")
        self.order.refresh_from_db()
        assert self.order.status == "class"
        assert Region.objects.count() == 1

    def test_on_commit_is_captured(self) -> None:
        called: list[int] = []
        with self.captureOnCommitCallbacks(execute=True), transaction.atomic(using="default"):
            self.order.save()
            transaction.on_commit(lambda: called.append(1), using="default")
        assert called == [1]

    def test_counting_queries(self) -> None:
        with self.assertNumQueries(1, using=self.layout.home):  # type: ignore[attr-defined]
            Order.objects.get(pk=self.order.pk)


class ClusterOfOneTests(ClassData, TestCase):
    layout = LAYOUTS[0]


class PartAtDefaultTests(ClassData, TestCase):
    layout = LAYOUTS[1]


class PartElsewhereTests(ClassData, TestCase):
    layout = LAYOUTS[2]


class NoneAtDefaultTests(ClassData, TestCase):
    layout = LAYOUTS[3]


class ToolsTests(ShardedTestCaseMixin, TestCase):
    def test_no_savepoint_is_counted(self) -> None:
        """The test's own block is open on every database, so a shard joins it without a statement."""
        with self.assertNumQueries(1, using="shard_a"):
            list(Order.objects.filter(tenant_id=tenant_on("shard_a")))

    def test_no_fan_out(self) -> None:
        tenants = [tenant_on("shard_a"), tenant_on("shard_b")]
        with self.assertNoFanOut():
            list(Order.objects.filter(tenant_id=tenants[0]))
        several = Order.objects.filter(tenant_id__in=tenants)
        with (
            pytest.raises(AssertionError) as failed,
            no_aggregator(),
            self.assertNoFanOut(),
            pytest.raises(CrossShardQuery),
        ):
            list(several)
        assert str(failed.value) == "1 queries were not limited to one bucket:\n  SELECT of shop.Order: 2 buckets"

    def test_statements(self) -> None:
        tenant = tenant_on("shard_a")
        with self.assertStatements({"shard_a": 1}):
            list(Order.objects.filter(tenant_id=tenant))
        with pytest.raises(AssertionError) as failed, self.assertStatements({"default": 1}):
            Order.objects.filter(tenant_id=tenant).count()
        assert str(failed.value) == (
            "Expected the statements {'default': 1}, but these were sent: {'shard_a': 1}\n"
            '  shard_a: SELECT COUNT(*) AS "__count" FROM "shop_order" WHERE "shop_order"."tenant_id" = %s'
        )


class FlushingTests(TransactionTestCase):
    databases: ClassVar = set(CLUSTER)

    def setUp(self) -> None:
        # What an earlier test of this class left would be counted.
        assert rows_everywhere() == 0
        self.order = Order.objects.create(tenant_id=tenant_on("shard_a"))
        Order.objects.create(tenant_id=tenant_on("shard_b"))

    def test_first(self) -> None:
        assert rows_everywhere() == 2

    def test_second(self) -> None:
        assert rows_everywhere() == 2
        assert not any(connections[alias].in_atomic_block for alias in CLUSTER)


class OneDatabaseTests(TestCase):
    """A test that names no shard may not reach one."""

    def test_is_kept_from_the_shards(self) -> None:
        with pytest.raises(ShardKeyMissing):
            Order.objects.count()
        with pytest.raises(
            AssertionError,
            match=r"Database (queries|(threaded )?connections) to 'shard_a' are not allowed in this test",
        ):
            Order.objects.filter(tenant_id=tenant_on("shard_a")).exists()


class SerializingTests(ShardedTestCaseMixin, TestCase):
    def test_each_database_is_saved_and_restored_by_itself(self) -> None:
        """What serialized_rollback does."""
        orders = [Order.objects.create(tenant_id=tenant_on(alias)) for alias in ("shard_a", "shard_b")]
        saved = {alias: connections[alias].creation.serialize_db_to_string() for alias in CLUSTER}
        for order, alias in zip(orders, ("shard_a", "shard_b"), strict=True):
            assert [name for name, text in saved.items() if str(order.pk) in text] == [alias]
            order.delete()
        assert rows_everywhere() == 0
        for alias, text in saved.items():
            connections[alias].creation.deserialize_db_from_string(text)
        assert rows_everywhere() == 2
        assert Order.objects.filter(tenant_id=tenant_on("shard_a")).count() == 1

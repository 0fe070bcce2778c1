"""What is in each bucket, as the shards tell it: compared with the rows that were stored."""

from __future__ import annotations

from collections import Counter

import pytest
from django.db import NotSupportedError, connections

from sharding import bucket_of, cluster_map, registry
from sharding.backends.raw_sql import CONTROL_ONLY
from sharding.operations import places
from sharding.rebalance import sizes
from sharding.rebalance.load import NOTHING, Size
from tests.layouts import CLUSTER, neighbour_in_bucket, tenants_on
from tests.messages import whole
from tests.shop.models import Account, Customer, Entry, Order
from tests.unfenced import unfenced

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def tenants(alias, number):
    found = tenants_on(alias)
    return [next(found) for _ in range(number)]


def fill(tenant, orders, status="new"):
    customer = Customer.objects.create(tenant_id=tenant, name="Ada", email=f"{tenant}@example.com")
    Order.objects.bulk_create([Order(tenant_id=tenant, customer=customer, status=status) for _ in range(orders)])


def bucket(tenant):
    return bucket_of(tenant, model=Customer)


def test_rows_are_counted_by_bucket_and_shard():
    expected = Counter()
    for alias in ("shard_a", "shard_b"):
        for number, tenant in enumerate(tenants(alias, 4)):
            fill(tenant, number)
            expected[bucket(tenant)] += number + 1
    account = Account.objects.create(owner="Eve")
    Entry.objects.create(account=account, amount=3)
    expected[bucket_of(account.pk, model=Account)] += 2
    found = sizes.cluster_sizes(cluster_map.current())
    assert {number: size.rows for number, size in found.items()} == expected
    assert list(found) == sorted(found)
    on_a = sizes.bucket_sizes("shard_a")
    assert on_a == {number: size for number, size in found.items() if cluster_map.current().owner(number) == "shard_a"}


def test_bytes_are_a_share_of_the_tables():
    light, heavy = tenants("shard_a", 2)
    fill(light, 20)
    fill(heavy, 60)
    found = sizes.bucket_sizes("shard_a")
    with connections["shard_a"].cursor() as cursor:
        cursor.execute("SELECT pg_total_relation_size('shop_order'), pg_total_relation_size('shop_customer')")
        orders, customers = cursor.fetchone()
    assert found[bucket(light)].bytes == int(orders * 20 / 80) + int(customers / 2)
    assert found[bucket(heavy)].bytes == int(orders * 60 / 80) + int(customers / 2)


@pytest.mark.parametrize("sample", [1, 0.999999])
def test_wide_rows_weigh_more_by_their_width(sample):
    narrow, wide = tenants("shard_a", 2)
    Customer.objects.create(tenant_id=narrow, name="A")
    Customer.objects.create(tenant_id=wide, name="A" * 40, email="a" * 200 + "@example.com")
    equal, weighed = sizes.bucket_sizes("shard_a"), sizes.bucket_sizes("shard_a", sample=sample)
    assert equal[bucket(narrow)] == equal[bucket(wide)]
    assert {number: size.rows for number, size in weighed.items()} == {bucket(narrow): 1, bucket(wide): 1}
    assert weighed[bucket(wide)].bytes > 2 * weighed[bucket(narrow)].bytes
    total = sum(size.bytes for size in equal.values())
    assert sum(size.bytes for size in weighed.values()) == pytest.approx(total, abs=3)


def test_a_sample_that_meets_nothing_is_as_good_as_none():
    (tenant,) = tenants("shard_a", 1)
    fill(tenant, 5)
    assert sizes.bucket_sizes("shard_a", sample=1e-6) == sizes.bucket_sizes("shard_a")


def test_what_a_shard_has_of_other_buckets_is_left_out():
    (tenant,), (elsewhere,) = tenants("shard_a", 1), tenants("shard_b", 1)
    fill(tenant, 1)
    with unfenced("shard_a", "shop_ledger"), connections["shard_a"].cursor() as cursor:
        cursor.execute(
            "INSERT INTO shop_ledger (bucket, tenant_id, number, text) VALUES (%s, %s, 1, '')",
            [bucket(elsewhere), elsewhere],
        )
    assert set(sizes.bucket_sizes("shard_a")) == {bucket(tenant), bucket(elsewhere)}
    assert set(sizes.cluster_sizes(cluster_map.current())) == {bucket(tenant)}


def test_the_control_database_is_a_shard_like_any_other():
    with unfenced("default", "shop_ledger"), connections["default"].cursor() as cursor:
        cursor.execute(
            f"{CONTROL_ONLY} INSERT INTO shop_ledger (bucket, tenant_id, number, text) "
            "VALUES (7, 1, 1, ''), (9, 2, 1, '')"
        )
    assert {number: size.rows for number, size in sizes.bucket_sizes("default", sample=1).items()} == {7: 1, 9: 1}


def test_a_partitioned_table_has_the_size_of_its_partitions():
    with connections["shard_a"].cursor() as cursor:
        cursor.execute("CREATE TABLE parted (bucket smallint) PARTITION BY LIST (bucket)")
        cursor.execute("CREATE TABLE parted_1 PARTITION OF parted FOR VALUES IN (1)")
        cursor.execute("CREATE TABLE parted_2 PARTITION OF parted FOR VALUES IN (2)")
        cursor.execute("INSERT INTO parted VALUES (1), (2)")
        cursor.execute(sizes.TABLE_SIZE, ["parted"])
        assert cursor.fetchone() == (2 * 8192,)
        cursor.execute(sizes.TABLE_SIZE, ["nothing_of_the_kind"])
        assert cursor.fetchone() == (0,)


def test_an_empty_cluster():
    assert sizes.cluster_sizes(cluster_map.current()) == {}


def test_every_sharded_table_has_the_index_that_counts():
    """A count by bucket reads no row: the index on (bucket, primary key) has all of it."""
    for entry in places.entries():
        names = [field.column for field in entry.model._meta.pk_fields]
        with connections["shard_a"].cursor() as cursor:
            found = connections["shard_a"].introspection.get_constraints(cursor, entry.table)
        assert any(each["columns"] == ["bucket", *names] for each in found.values()), entry.label


# --- one key


def test_a_key_and_its_neighbours():
    (tenant,) = tenants("shard_a", 1)
    neighbour = neighbour_in_bucket(tenant)
    fill(tenant, 8)
    fill(neighbour, 1)
    size = sizes.bucket_sizes("shard_a")[bucket(tenant)]
    found = sizes.key_in_bucket("shard_a", registry.get(Order), tenant, size)
    assert (found.name, found.size.rows, found.keys) == (f"tenant_id={tenant}", 9, 2)
    assert 0.7 < found.size.bytes / size.bytes < 0.9
    assert sizes.key_in_bucket("shard_a", registry.get(Customer), str(tenant), size).size == found.size


def test_keys_of_other_families_are_neighbours():
    account = Account.objects.create(owner="Eve")
    Entry.objects.create(account=account, amount=3)
    number = bucket_of(account.pk, model=Account)
    alias = cluster_map.current().owner(number)
    size = sizes.bucket_sizes(alias)[number]
    found = sizes.key_in_bucket(alias, registry.get(Entry), account.pk, size)
    assert (found.size.rows, found.keys) == (2, 1)
    assert found.size.bytes == size.bytes
    found = sizes.key_in_bucket(alias, registry.get(Order), 10**6, NOTHING)
    assert (found.size, found.keys) == (Size(), 0)


# --- refusals


@pytest.mark.parametrize("sample", [0, -0.1, 1.5, float("nan")])
def test_impossible_samples(sample):
    message = f"A sample is a part of all rows: more than 0 and at most 1, not {sample!r}."
    with pytest.raises(ValueError, match=whole(message)):
        sizes.bucket_sizes("shard_a", sample=sample)


def test_sqlite_has_no_moves(monkeypatch):
    monkeypatch.setattr(connections["shard_a"], "vendor", "sqlite")
    message = "'shard_a' is not PostgreSQL, between whose servers buckets move."
    with pytest.raises(NotSupportedError, match=whole(message)):
        sizes.bucket_sizes("shard_a")

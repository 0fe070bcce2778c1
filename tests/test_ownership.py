"""
Statements for several shards find no rows that a shard hides: of buckets that it gave away, or is being given.

The random programs of the differential test meet such rows, too; here is each way to ask, by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.db import connections
from django.db.models import Count, F, Sum, Window
from django.db.models.functions import RowNumber

from aggregator import KeysetPaginator, fan_out
from sharding import explain
from sharding.bucket_states import BucketState
from sharding.models import Fence
from sharding.testing import cluster
from sharding.testing.statements import statements
from tests import moved_rows, servers
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.shop.models import Order

pytestmark = [
    pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY),
    pytest.mark.skipif(servers.engine != "postgresql", reason="only PostgreSQL has fences"),
]

TOTALS = list(range(8))


@pytest.fixture(autouse=True)
def orders(transactional_db: None) -> Iterator[None]:
    """Two orders on each database, of which the next one has copies that it hides."""
    with cluster.owners(*CLUSTER):
        places = [(alias, place) for place in range(2) for alias in CLUSTER]
        Order.objects.bulk_create(
            [Order(tenant_id=tenant_on(*where), total=total, status=where[0]) for total, where in enumerate(places)]
        )
        with moved_rows.on_the_next_shard([Order]):
            yield


def _totals(rows: Any) -> list[int]:
    return sorted(int(getattr(row, "total", row)) for row in rows)


def _all() -> Any:
    return fan_out(Order.objects)


READS: dict[str, Callable[[], Any]] = {
    "rows": lambda: _totals(_all()),
    "a slice": lambda: _totals(_all().order_by("total")[:8]),
    "either of two conditions": lambda: _totals(_all().filter(total__lt=4) | _all().filter(total__gte=4)),
    "a stream": lambda: _totals(_all().iterator(chunk_size=2)),
    "DISTINCT values": lambda: _totals(_all().values_list("total", flat=True).distinct()),
    "a count": lambda: list(range(_all().count())),
    "a count of a slice": lambda: list(range(_all()[:12].count())),
    "groups": lambda: _totals(
        _all().values("total").annotate(n=Count("pk")).filter(n=1).values_list("total", flat=True)
    ),
    "a sum of groups": lambda: list(range(_all().values("total").annotate(n=Count("pk")).aggregate(s=Sum("n"))["s"])),
    "gathered rows": lambda: _totals(_all().annotate(n=Window(RowNumber(), order_by="pk"))),
    "pages": lambda: _totals(KeysetPaginator(_all().order_by("total"), per_page=8).page()),
    "keys": lambda: _totals(Order.objects.filter(tenant_id__in=_tenants())),
    "ids": lambda: _totals(Order.objects.in_bulk([order.pk for order in _all()]).values()),
}


def _tenants() -> list[int]:
    return [tenant_on(alias, place) for alias in CLUSTER for place in range(2)]


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_each_row_is_found_once(read: Callable[[], Any]) -> None:
    assert read() == TOTALS


def test_one_shard_alone() -> None:
    for alias in CLUSTER:
        there = fan_out(Order.objects, shards=[alias])
        assert {order.status for order in there} == {alias}
        assert there.count() == 2
        assert there.aggregate(n=Count("pk", distinct=True)) == {"n": 2}
        assert {order.status for order in there.annotate(n=Window(RowNumber(), order_by="pk"))} == {alias}


def test_wide_writes() -> None:
    """They change and count the owner's rows, and leave the others as they are."""
    assert _all().update(quantity=5) == 8
    assert Order.objects.filter(tenant_id__in=_tenants()).update(weight=F("quantity")) == 8
    assert fan_out(Order.objects, shards=["shard_b"]).update(quantity=6) == 2
    assert _all().filter(total__gt=5).delete() == (2, {"shop.Order": 2})
    assert _hidden("SELECT count(*) FROM shop_order WHERE quantity IS NULL AND weight IS NULL") == 8


def _hidden(sql: str) -> int:
    """Return the sum over the databases of what they say of rows that they hide."""
    found = 0
    for alias in CLUSTER:
        connection: Any = connections[alias]
        with connection.cursor() as cursor, connection.sharded_statements():
            cursor.execute(f"{sql} AND bucket IN ({moved_rows.HIDDEN})")
            found += cursor.fetchone()[0]
    return found


def test_what_the_states_mean() -> None:
    """A bucket that is about to go is still here; what is not in the fence at all is nobody else's."""
    owned = Fence.objects.using("shard_b").filter(state=BucketState.OWNED)
    own = list(owned.values_list("bucket", flat=True))
    for state in (BucketState.CAPTURING, BucketState.FENCED, BucketState.OWNED):
        Fence.objects.using("shard_b").filter(bucket__in=own).update(state=state)
        assert _all().count() == 8, state
    hidden = list(Fence.objects.using("shard_b").filter(state__in=moved_rows.HIDING))
    Fence.objects.using("shard_b").filter(state__in=moved_rows.HIDING).delete()
    assert _all().count() == 10
    # To be taken away with the rows of the others.
    Fence.objects.using("shard_b").bulk_create(hidden)


def test_statements_to_one_owner_are_as_ever() -> None:
    with statements() as sent:
        list(Order.objects.filter(tenant_id=tenant_on("shard_a")))
        list(fan_out(Order.objects.filter(tenant_id=tenant_on("shard_a"))))
        Order.objects.filter(tenant_id=tenant_on("shard_a")).update(quantity=1)
    assert not any("fence" in sql for alias in sent for sql in sent[alias])


def test_a_cluster_of_one_has_nothing_to_hide() -> None:
    with cluster.owners("default"), statements() as sent:
        list(_all())
        _all().update(quantity=1)
    assert not any("fence" in sql for sql in sent["default"])


ASKED = [
    _all,
    lambda: _all().filter(total=1).order_by("total"),
    lambda: _all().values("status").annotate(n=Count("pk")),
]


@pytest.mark.parametrize("ask", ASKED, ids=["all", "some", "groups"])
def test_explain_shows_what_was_asked(ask: Callable[[], Any], capsys: pytest.CaptureFixture[str]) -> None:
    explain(ask())
    out = capsys.readouterr().out
    assert "FROM" in out
    assert "sharding" not in out

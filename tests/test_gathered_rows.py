"""
How much travels when rows are gathered, when it is too much, and what is written by what other shards have.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, Subquery, Window
from django.db.models.functions import Rank, RowNumber
from django.test import override_settings

from aggregator import fan_out
from sharding import cluster_map
from sharding.errors import CannotMerge, GatherTooLarge, GlobalJoin
from sharding.testing import assert_statements
from sharding.testing.statements import statements
from tests import servers
from tests.messages import whole
from tests.shop.models import Customer, Line, Order, Region
from tests.two_sides import LAYOUTS, answers, cluster_side, reference_side, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")
ONE_SUBQUERY = (
    "This shop.Order query cannot be answered inside one bucket because of the subquery over shop.Line. Limit both "
    "queries to the same shard key, correlate them by it (OuterRef), or evaluate the inner one first: list(inner)."
)


@pytest.fixture(scope="module", params=["part", "none"], autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[tuple[str, ...]]:
    with django_db_blocker.unblock(), rows_on(LAYOUTS[request.param]):
        yield LAYOUTS[request.param]


@pytest.fixture(autouse=True)
def bucket_map() -> None:
    """Statements are counted, so that the map is read before."""
    cluster_map.current()


def ranked(rows: Any) -> Any:
    return rows.annotate(place=Window(Rank(), order_by="total")).order_by("place", "pk")


def limited(**values: int) -> Any:
    return override_settings(SHARDING={**settings.SHARDING, **values})


def sent_for(ask: Any, alias: str) -> list[str]:
    with statements() as sent:
        list(ask)
    return [str(sql) for sql in sent[alias]]


def test_one_statement_for_each_shard_and_one_at_the_end(layout: tuple[str, ...]) -> None:
    if servers.engine == "sqlite":
        # The end is a database in memory.
        expected = dict.fromkeys(layout, 1)
    else:
        home = next(alias for alias in layout if alias != "default")
        expected = {alias: 2 if alias == home else 1 for alias in layout}
    with assert_statements(expected):
        list(ranked(fan_out(Order.objects)))


def test_only_filtered_rows_and_used_columns_travel(layout: tuple[str, ...]) -> None:
    rows = ranked(fan_out(Order.objects).filter(status="paid", customer__name__gt="b").exclude(quantity=1))
    sent = sent_for(rows.values("pk", "place"), layout[-1])
    sql = next(each for each in sent if 'FROM "shop_order" "gathered"' in each)
    table = sql.index('FROM "shop_order" "gathered"')
    fetched = sql[table:].split(") t)")[0]
    assert '"gathered"."status" = ' in fetched
    assert '"gathered"."quantity" = ' in fetched
    assert "NOT (" in fetched
    columns = sql[:table].rpartition("SELECT")[2]
    assert {name for name in ("id", "customer_id", "total", "status", "quantity") if f'"{name}"' in columns} == {
        "id",
        "customer_id",
        "total",
        "status",
        "quantity",
    }
    assert '"weight"' not in sql
    assert '"created"' not in sql


def test_rows_without_companions_do_not_travel(layout: tuple[str, ...]) -> None:
    """An inner join inside the bucket is made by each shard, too, so that the limit counts what the answer needs."""
    few = fan_out(Line.objects).filter(order__status="paid", order__customer__name__startswith="A")
    number = few.count()
    assert 0 < number < fan_out(Line.objects).count() / 4
    with limited(GATHER_ROWS=3 * number):
        assert len(few.annotate(n=Window(RowNumber(), order_by="pk"))) == number


def test_a_filter_of_one_reader_does_not_hide_the_rows_of_another() -> None:
    def ask(of: Any) -> Any:
        others = of(Order).filter(status="sent", total=OuterRef("total"))
        return ranked(of(Order).filter(Exists(others), status="paid")).values_list("total", "place")

    found, expected = answers(ask)
    assert found == expected
    assert found


def test_no_filter_of_an_outer_join_is_pushed_down(layout: tuple[str, ...]) -> None:
    """Each order whose customer did not travel would look like one without a customer."""
    found, expected = answers(lambda of: ranked(of(Order).filter(customer__name__isnull=True)).values_list("pk"))
    assert found == expected
    assert found
    sent = sent_for(ranked(fan_out(Order.objects).filter(customer__name__isnull=True)), layout[-1])
    fetched = 'FROM "shop_customer" "gathered"'
    [customers] = [sql.partition(fetched)[2] for sql in sent if fetched in sql]
    assert '"gathered"."name"' not in customers.partition("LIMIT")[0]


def test_uncommitted_rows_are_seen() -> None:
    before = [each.place for each in ranked(fan_out(Order.objects).filter(status="mine"))]
    with transaction.atomic(using="default"):
        Order.objects.create(tenant_id=3, status="mine", total=1)
        Order.objects.create(tenant_id=4, status="mine", total=2)
        during = [each.place for each in ranked(fan_out(Order.objects).filter(status="mine"))]
        transaction.set_rollback(True, using="default")
    assert (before, during) == ([], [1, 2])


def test_no_row_at_all() -> None:
    rows = ranked(fan_out(Order.objects))
    assert list(rows.filter(pk__in=[])) == []
    assert list(rows.filter(status="none")) == []
    assert fan_out(Order.objects).filter(status="none").order_by("pk")[:3].aggregate(n=Count("pk")) == {"n": 0}


def test_too_many_rows(layout: tuple[str, ...]) -> None:
    message = (
        "Because of a window function, this shop.Order query needs rows of all shards in one place: more than "
        "SHARDING['GATHER_ROWS'] = 5, most of them of the table 'shop_order'. Filter by columns of that table, limit "
        "the query to one shard key, or raise the setting."
    )
    with limited(GATHER_ROWS=5):
        with pytest.raises(GatherTooLarge, match=whole(message)) as caught:
            list(ranked(fan_out(Order.objects)))
        few = ranked(fan_out(Order.objects).filter(tenant_id=3, status="paid"))
        assert 0 < len(few) <= 5
    assert (caught.value.model, caught.value.table, caught.value.limit) == ("shop.Order", "shop_order", 5)


@pytest.mark.skipif(servers.engine == "sqlite", reason="in memory, bytes are not counted")
def test_too_many_bytes() -> None:
    message = (
        "Because of a window function, this shop.Order query needs rows of all shards in one place: more than "
        "SHARDING['GATHER_BYTES'] = 1000, most of them of the table 'shop_order'. Filter by columns of that table, "
        "limit the query to one shard key, or raise the setting."
    )
    with limited(GATHER_BYTES=1000), pytest.raises(GatherTooLarge, match=whole(message)):
        list(ranked(fan_out(Order.objects)))


def test_the_limit_counts_all_shards_together() -> None:
    rows = fan_out(Order.objects)
    with limited(GATHER_ROWS=rows.count()):
        assert len(ranked(rows)) == rows.count()
    with limited(GATHER_ROWS=rows.count() - 1), pytest.raises(GatherTooLarge):
        list(ranked(rows))


def test_several_keys_need_no_opt_in_as_long_as_all_is_in_their_buckets(layout: tuple[str, ...]) -> None:
    keys = [1, 2, 3, 4]
    found = ranked(Order.objects.filter(tenant_id__in=keys, customer__name__gt="a"))
    expected = ranked(reference_side(Order).filter(tenant_id__in=keys, customer__name__gt="a"))
    assert [(each.pk, each.place) for each in found] == [(each.pk, each.place) for each in expected]


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda rows: rows.filter(total__in=Line.objects.values("amount")), CannotMerge),
        (lambda rows: ranked(rows.select_related("customer__region")), GlobalJoin),
        (lambda rows: ranked(rows.order_by("customer__region__name")).order_by("customer__region__name"), GlobalJoin),
        (lambda rows: ranked(rows.filter(customer__region__name="n1")), GlobalJoin),
    ],
)
def test_what_is_elsewhere_needs_the_opt_in(ask: Any, error: Any) -> None:
    with assert_statements({}), pytest.raises(error):
        list(ask(Order.objects.filter(tenant_id__in=[1, 2, 3, 4])))


def test_one_key_and_what_is_elsewhere() -> None:
    """Never answered from one shard alone."""
    with assert_statements({}), pytest.raises(CannotMerge, match=whole(ONE_SUBQUERY)):
        list(Order.objects.filter(tenant_id=3, quantity__in=Line.objects.values("amount")))
    rows = fan_out(Order.objects).filter(tenant_id=3, quantity__in=Line.objects.values("amount"))
    expected = reference_side(Order).filter(tenant_id=3, quantity__in=reference_side(Line).values("amount"))
    assert {each.pk for each in rows} == {each.pk for each in expected}
    assert {each.pk for each in rows}


def test_a_table_of_no_database_of_the_cluster(layout: tuple[str, ...]) -> None:
    from django.db import models

    query = fan_out(Customer.objects).filter(region__name="x")
    before, Region._meta.db_table = Region._meta.db_table, "gone"
    try:
        message = (
            "The answers of several shards to this shop.Customer query cannot be merged exactly because of the table "
            "'shop_region', which is in no database of the cluster. Do this part in Python, or limit the query to one "
            "shard key."
        )
        with pytest.raises(CannotMerge, match=whole(message)):
            list(query)
    finally:
        Region._meta.db_table = before
    assert issubclass(Region, models.Model)


def test_the_text_of_a_query_asks_nothing() -> None:
    with assert_statements({}):
        assert "RANK() OVER" in str(ranked(fan_out(Order.objects)).query)


def test_explain_tells_what_travels(layout: tuple[str, ...]) -> None:
    lines = ranked(fan_out(Order.objects).filter(status="paid")).values("pk").explain().splitlines()
    assert lines[0] == "-- the rows are gathered in one place because of a window function"
    assert [line for line in lines[1:] if line.startswith("-- ")] == [f"-- {alias}" for alias in layout]
    assert sum("gathered" in line for line in lines[1:]) == len(layout)


# Writes


def one_row_of(side: Any) -> Any:
    """The greatest amount of all lines, which one shard has."""
    return side(Line).order_by("-amount").values("amount")[:1]


def numbered(rows: Any) -> Any:
    return rows.annotate(n=Window(RowNumber(), order_by="pk"))


def state(side: Any) -> list[Any]:
    return sorted(side(Order).values_list("pk", "status", "quantity"))


@pytest.mark.parametrize(
    "write",
    [
        lambda side: side(Order).filter(quantity__in=side(Line).values("amount")).update(status="hit"),
        lambda side: side(Order).filter(quantity=Subquery(one_row_of(side))).update(quantity=F("quantity") + 1),
        lambda side: side(Order).exclude(quantity__in=side(Line).values("amount")).filter(status="paid").delete()[0],
        lambda side: side(Line).filter(amount__in=side(Order).values("quantity")).delete()[0],
        lambda side: numbered(side(Order).filter(customer__name__gt="b")).filter(n__lte=3).update(status="hit"),
        lambda side: numbered(side(Line).filter(order__status="paid")).filter(n__lte=3).delete()[0],
    ],
    ids=["update", "update by one value", "delete with dependents", "delete", "update by a window", "delete by one"],
)
def test_writes_by_what_other_shards_have(write: Any) -> None:
    with transaction.atomic(using="default"), transaction.atomic(using="reference"):
        assert write(cluster_side) == write(reference_side) > 0
        assert state(cluster_side) == state(reference_side)
        assert fan_out(Line.objects).count() == reference_side(Line).count()
        for alias in ("default", "reference"):
            transaction.set_rollback(True, using=alias)


def test_what_is_set_must_be_of_the_same_bucket() -> None:
    with pytest.raises(CannotMerge, match=whole(ONE_SUBQUERY)), transaction.atomic(using="default"):
        fan_out(Order.objects).update(quantity=Subquery(one_row_of(cluster_side)))


def test_a_row_that_changes_before_it_is_written_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    from aggregator.resolving import Resolving

    writing = Resolving._writing

    def after_a_change(self: Any, ids: list[Any]) -> Any:
        Order.objects.filter(pk=ids[0]).update(status="changed")
        return writing(self, ids)

    monkeypatch.setattr(Resolving, "_writing", after_a_change)
    with transaction.atomic(using="default"):
        rows = fan_out(Order.objects).filter(status="paid", quantity__in=Line.objects.values("amount"))
        number = rows.count()
        assert rows.update(quantity=7) == number - 1
        transaction.set_rollback(True, using="default")


def test_a_write_by_a_global_subquery() -> None:
    with transaction.atomic(using="default"):
        region = Region.objects.create(name="here")
        fan_out(Customer.objects).filter(name__startswith="b").update(region=region)
        here = Region.objects.filter(name="here")
        assert fan_out(Customer.objects).filter(region__in=here).update(name="moved") == 8
        assert fan_out(Customer.objects).filter(name="moved").count() == 8
        transaction.set_rollback(True, using="default")


def test_a_count_by_itself_gathers_nothing() -> None:
    with statements() as sent:
        ranked(fan_out(Order.objects)).count()
    assert not [sql for alias in sent for sql in sent[alias] if "row_to_json" in str(sql)]


def test_numbers_in_each_group_of_windows() -> None:
    def ask(of: Any) -> Any:
        numbered = of(Order).annotate(n=Window(RowNumber(), partition_by="status", order_by="pk"))
        return numbered.filter(n=1).order_by("status").values_list("status", "n")

    found, expected = answers(ask)
    assert found == expected
    assert found

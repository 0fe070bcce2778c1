"""attach() gives what select_related() gives in one database, on three kinds of cluster and from other databases."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.test import override_settings

from aggregator import attach, attaching, fan_out
from sharding.testing.statements import assert_statements, statements
from tests.messages import whole
from tests.related_rows import DANGLING, related_rows_on
from tests.shop.models import Country, Customer, Line, Note, Order, Region
from tests.two_sides import LAYOUTS, plain

pytestmark = pytest.mark.django_db(databases="__all__")
Layout = tuple[str, ...]


@pytest.fixture(scope="module", params=LAYOUTS.values(), ids=list(LAYOUTS), autouse=True)
def layout(request: Any, django_db_setup: None, django_db_blocker: Any) -> Iterator[Layout]:
    with django_db_blocker.unblock(), related_rows_on(request.param):
        yield request.param


def expect(layout: Layout, shards: int, default: int) -> dict[str, int]:
    """Return how many statements each shard gets, and `default` beside what it gets as a shard."""
    found = dict.fromkeys(layout, shards)
    found["default"] = found.get("default", 0) + default
    return found


def followed(instance: Any, path: str) -> Any:
    """Return the columns of what a path leads to; None at a NULL or a key without a row."""
    for name in path.split("__"):
        instance = None if instance is None else getattr(instance, name)
    return plain(instance)


def customers() -> Any:
    return fan_out(Customer.objects).order_by("id")


PATHS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "global": (Customer, ("region",)),
    "reference": (Customer, ("country",)),
    "co-located": (Order, ("customer",)),
    "nested": (Order, ("customer__region",)),
    "several": (Order, ("customer__region", "customer__country")),
    "sharded from global": (Note, ("order",)),
    "there and back": (Note, ("order__customer__region",)),
}


@pytest.mark.parametrize(("model", "paths"), PATHS.values(), ids=PATHS)
def test_as_select_related_in_one_database(model: Any, paths: tuple[str, ...]) -> None:
    source = model.objects if model is Note else fan_out(model.objects)
    found = list(attach(source, *paths).order_by("id"))
    expected = list(model.objects.using("reference").select_related(*paths).order_by("id"))
    with assert_statements({}):
        for path in paths:
            assert [(each.pk, followed(each, path)) for each in found] == [
                (each.pk, followed(each, path)) for each in expected
            ]
    assert len(found) > 5


def test_one_query_for_a_relation(layout: Layout) -> None:
    with assert_statements(expect(layout, shards=1, default=1)) as sent:
        found = list(attach(customers(), "region"))
    assert [each.region_id for each in found].count(1) == 8
    assert sum('FROM "shop_region"' in sql for sql in sent["default"]) == 1


def test_a_relation_of_two_paths_is_asked_for_once(layout: Layout) -> None:
    """Reference rows are read from the control database."""
    with assert_statements(expect(layout, shards=2, default=2)):
        list(attach(fan_out(Order.objects), "customer__region", "customer__country"))


@pytest.mark.parametrize(("keys", "queries"), [(3, 2), (4, 1)])
def test_keys_go_in_batches(keys: int, queries: int, layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    """There are four different keys, and the NULLs are none."""
    monkeypatch.setattr(attaching, "KEYS", keys)
    with assert_statements(expect(layout, shards=1, default=queries)):
        found = list(attach(customers(), "region"))
    assert {each.region and each.region.pk for each in found} == {1, 2, 3, None}


def test_no_keys_no_query(layout: Layout) -> None:
    with assert_statements(expect(layout, shards=1, default=0)):
        assert {each.region for each in attach(customers().filter(region=None), "region")} == {None}


def test_a_dangling_key_gives_none() -> None:
    found = attach(customers(), "region").filter(region=DANGLING)[0]
    with assert_statements({}):
        assert (found.region_id, found.region) == (DANGLING, None)


def test_a_dangling_key_that_is_not_nullable(layout: Layout) -> None:
    """A JOIN would leave the row out."""
    line = Line.objects.create(tenant_id=3, order=Order.objects.filter(tenant_id=3)[0], product="tea")
    Order.objects.filter(pk=line.order_id)._raw_delete("default")
    found = attach(Line.objects.filter(tenant_id=3), "order").get()
    with assert_statements({}), pytest.raises(Order.DoesNotExist, match=whole("Line has no order.")):
        found.order  # noqa: B018
    line.delete()


def test_rows_with_equal_keys_share_one_object() -> None:
    assert len({id(each.region) for each in attach(customers(), "region").filter(region=1)}) == 1


def test_chunks_are_attached_as_they_come() -> None:
    with statements() as sent:
        rows = attach(customers(), "region").iterator(chunk_size=4)
        taken = [sum("shop_region" in sql for _, sql in sent.sent) for _, _ in zip(range(9), rows, strict=False)]
        rows.close()  # type: ignore[attr-defined]
    assert taken == [1, 1, 1, 1, 2, 2, 2, 2, 3]


def test_what_is_known_is_not_asked_for_again(layout: Layout) -> None:
    with assert_statements(expect(layout, shards=1, default=1)):
        list(attach(fan_out(Order.objects).select_related("customer"), "customer__region"))


def test_one_shard_and_one_other_database(layout: Layout) -> None:
    with statements() as sent:
        list(attach(Customer.objects.filter(tenant_id=3), "region"))
    assert sum(sent.counts.values()) == 2


def test_a_database_by_name() -> None:
    with assert_statements({"reference": 2}):
        list(attach(Customer.objects.using("reference"), "region"))


class RegionsInPlain:
    def db_for_read(self, model: Any, **hints: Any) -> str | None:
        return "plain" if model is Region else None


def test_a_database_by_a_router(layout: Layout) -> None:
    Region.objects.using("plain").create(pk=1, name="of another database")
    with override_settings(DATABASE_ROUTERS=["sharding.router.ShardRouter", RegionsInPlain()]):
        with assert_statements({**dict.fromkeys(layout, 1), "plain": 1}):
            found = list(attach(customers().filter(region=1), "region"))
        assert {each.region.name for each in found} == {"of another database"}


def test_reference_models_are_joined_without_it() -> None:
    """So the two can be used together."""
    found = attach(customers().select_related("country"), "region")
    with assert_statements({}):
        assert {each.country for each in [*found.none()]} == set()
    assert {each.country for each in found} == {Country.objects.get(code="PE")}

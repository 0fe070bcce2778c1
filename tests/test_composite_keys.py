"""Rows whose primary key has two columns, asked of several shards: what cannot be seen by comparing answers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.db.models import Count

from aggregator import fan_out
from sharding import ownership
from sharding.testing.statements import assert_statements
from tests.shop.models import Ledger
from tests.two_sides import LAYOUTS, rows_on

pytestmark = pytest.mark.django_db(databases="__all__")


@pytest.fixture(scope="module", autouse=True)
def rows(django_db_setup: None, django_db_blocker: Any) -> Iterator[None]:
    with django_db_blocker.unblock(), rows_on(LAYOUTS["none"]):
        yield


def test_each_column_is_asked_for_once() -> None:
    with assert_statements(dict.fromkeys(LAYOUTS["none"], 1)) as sent:
        list(fan_out(Ledger.objects).values_list("pk").order_by("-pk"))
    assert ownership.as_asked(sent["shard_a"][0], ())[0].startswith(
        'SELECT "shop_ledger"."tenant_id", "shop_ledger"."number" FROM "shop_ledger" ORDER BY '
    )


def test_ties_of_groups_are_broken_by_both_columns() -> None:
    groups = fan_out(Ledger.objects).values("text", "pk").annotate(n=Count("bucket"))
    by_key = [row["pk"] for row in groups.order_by("pk")]
    assert [row["pk"] for row in groups.order_by("-text")[5:15]] == by_key[::-1][5:15]

"""
The law of routing: whatever the condition, every row that matches it lies in the buckets that routing names.

Five buckets stand for 4096, so that different keys often share one; the conditions come from Hypothesis.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from functools import reduce
from itertools import product
from operator import and_, or_, xor
from typing import Any

import pytest
from django.db.models import F, Model, Q, QuerySet, Value
from django.db.models.lookups import Exact
from django.test import override_settings
from hypothesis import given, settings
from hypothesis import strategies as st

from sharding import bucket_of
from sharding.routing import buckets_of
from tests.shop.models import Customer, Ledger, Line, Order
from tests.where_evaluation import Row, matches

BUCKETS = 5
KEYS = (-1, 0, 1, 2, 3, 4, 5, 42)


@pytest.fixture(autouse=True, scope="module")
def few_buckets() -> Iterator[None]:
    with override_settings(SHARDING={"BUCKETS": BUCKETS}):
        yield


def uuid_in(bucket: int, number: int) -> uuid.UUID:
    """Return an id that holds a bucket: its layout is enough, and it is the same in every run."""
    return uuid.UUID(int=7 << 76 | bucket << 64 | 0b10 << 62 | number)


#: Two ids of each bucket, and some that hold no bucket of this cluster.
IDS = [uuid_in(bucket, number) for bucket in range(BUCKETS + 2) for number in (1, 2)]

keys = st.sampled_from(KEYS)
key_values = st.one_of(keys, keys.map(str), keys.map(Value))
uuids = st.sampled_from(IDS)
id_values = st.one_of(uuids, uuids.map(str))
numbers = st.sampled_from([1, 2])


def either_form(field: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[Q]:
    """Conditions that name one value or several, None among them."""
    return st.one_of(
        values.map(lambda value: Q(**{field: value})),
        st.lists(st.one_of(st.none(), values), max_size=3).map(lambda several: Q(**{f"{field}__in": several})),
    )


def trees(leaves: st.SearchStrategy[Q]) -> st.SearchStrategy[Q]:
    """Conditions of AND, OR, XOR and NOT over the leaves."""
    return st.recursive(
        leaves,
        lambda inner: st.one_of(
            inner.map(lambda q: ~q),
            st.tuples(st.sampled_from([and_, or_, xor]), st.lists(inner, min_size=2, max_size=3)).map(
                lambda drawn: reduce(drawn[0], drawn[1])
            ),
        ),
        max_leaves=8,
    )


tenant_leaves = st.one_of(
    either_form("tenant_id", key_values),
    keys.map(lambda key: Q(Exact(Value(key), F("tenant_id")))),
    keys.map(lambda key: Q(t=key)),
    keys.map(lambda key: Q(mine=key > 1)),
    keys.map(lambda key: Q(tenant_id__gte=key)),
    keys.map(lambda key: Q(tenant_id__lt=key)),
    st.just(Q(tenant_id=F("quantity"))),
    st.just(Q(tenant_id__isnull=True)),
    st.just(Q(pk__in=[])),
    st.just(Q()),
    numbers.map(lambda number: Q(quantity=number)),
)
order_leaves = st.one_of(
    tenant_leaves,
    either_form("pk", id_values),
    either_form("customer_id", id_values),
    uuids.map(lambda found: Q(customer=Customer(pk=found))),
    either_form("customer__tenant_id", key_values),
    st.just(Q(customer__isnull=True)),
)
ledger_leaves = st.one_of(
    either_form("tenant_id", key_values),
    st.tuples(keys, numbers).map(lambda pair: Q(pk=pair)),
    st.lists(st.tuples(keys, numbers), max_size=3).map(lambda pairs: Q(pk__in=pairs)),
    numbers.map(lambda number: Q(number=number)),
)


def orders() -> QuerySet[Any]:
    return Order.objects.annotate(t=F("tenant_id"), mine=Q(tenant_id__in=[1, 2]))


def order_rows() -> Iterator[tuple[int, Row]]:
    """Yield orders with their customers, of the same key or of another one in the same bucket, or of none."""
    for key, quantity, number in product(KEYS, (None, 2), (1, 2)):
        bucket = bucket_of(key, model=Order)
        own = {("shop_order", "id"): uuid_in(bucket, number), ("shop_order", "tenant_id"): key}
        own["shop_order", "quantity"] = quantity
        for other in (None, *KEYS):
            if other is None or bucket_of(other, model=Customer) == bucket:
                customer = None if other is None else uuid_in(bucket, 3 - number)
                joined = {("shop_customer", "id"): customer, ("shop_customer", "tenant_id"): other}
                yield bucket, {**own, ("shop_order", "customer_id"): customer, **joined}


def assert_sound(queryset: QuerySet[Any], rows: Iterator[tuple[int, Row]]) -> None:
    buckets = buckets_of(queryset.query)
    if buckets is not None:
        lost = [row for bucket, row in rows if bucket not in buckets and matches(queryset.query, row)]
        assert not lost, f"{queryset.query.where} matches rows of other buckets than {set(buckets)}: {lost}"


law = settings(max_examples=200)


@law
@given(trees(order_leaves), trees(order_leaves))
def test_no_matching_order_is_elsewhere(condition: Q, excluded: Q) -> None:
    assert_sound(orders().filter(condition).exclude(excluded), order_rows())


@law
@given(trees(tenant_leaves), trees(tenant_leaves), st.sampled_from([and_, or_, xor]))
def test_no_matching_order_of_combined_querysets_is_elsewhere(left: Q, right: Q, combined: Any) -> None:
    assert_sound(combined(orders().filter(left), orders().filter(right)), order_rows())


@law
@given(trees(ledger_leaves))
def test_no_matching_ledger_is_elsewhere(condition: Q) -> None:
    rows = (
        (bucket_of(key, model=Ledger), {("shop_ledger", "tenant_id"): key, ("shop_ledger", "number"): number})
        for key, number in product(KEYS, (1, 2))
    )
    assert_sound(Ledger.objects.filter(condition), rows)


def test_the_law_would_notice_a_bucket_too_few() -> None:
    queryset = Order.objects.filter(Q(tenant_id=3) | Q(quantity=2))
    found = [bucket for bucket, row in order_rows() if matches(queryset.query, row)]
    assert buckets_of(queryset.query) is None
    assert set(found) > {bucket_of(3, model=Order)}


@pytest.mark.parametrize("model", [Order, Ledger, Line])
def test_rows_of_one_key_share_a_bucket(model: type[Model]) -> None:
    assert bucket_of("42", model=model) == bucket_of(42, model=Order) < BUCKETS

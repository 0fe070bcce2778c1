"""
What a WHERE clause proves about the buckets of the rows: every rule, and every trap that must prove nothing.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest
from django.db.models import Case, Count, Exists, F, IntegerField, OuterRef, Q, QuerySet, TextField, Value, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Abs, Cast
from django.db.models.lookups import Exact

from sharding import bucket_of, ids
from sharding.routing import NO_ROW, buckets_of
from tests.shop.models import Account, Customer, Device, Entry, Ledger, Line, Order, PaidOrder, Reading, Tag

O = Order.objects  # noqa: E741
TENANT = bucket_of(3, model=Order)
OTHER = bucket_of(4, model=Order)
ID, OTHER_ID = ids.new_uuid(TENANT), ids.new_uuid(OTHER)
NUMBER = ids.pack_bigint(1, 1, TENANT)
customer = Customer(pk=ID, tenant_id=3)
order = Order(pk=ID, tenant_id=3)

ONE: dict[str, Callable[[], QuerySet[Any]]] = {
    "the key": lambda: O.filter(tenant_id=3),
    "the key as text": lambda: O.filter(tenant_id="3"),
    "exact": lambda: O.filter(tenant_id__exact=3),
    "in, one": lambda: O.filter(tenant_id__in=[3]),
    "in, the same twice": lambda: O.filter(tenant_id__in=[3, "3"]),
    "in, a set": lambda: O.filter(tenant_id__in={3}),
    "in, with None": lambda: O.filter(tenant_id__in=[3, None]),
    "Value": lambda: O.filter(tenant_id=Value(3)),
    "Value of another type": lambda: O.filter(tenant_id=Value("3")),
    "swapped sides": lambda: O.filter(Exact(Value(3), F("tenant_id"))),
    "swapped sides, of another type": lambda: O.filter(Exact(Value("3"), F("tenant_id"))),
    "lookup as an expression": lambda: O.filter(Exact(F("tenant_id"), 3)),
    "an annotation of the key": lambda: O.annotate(t=F("tenant_id")).filter(t=3),
    "an annotated condition": lambda: O.annotate(mine=Q(tenant_id=3)).filter(mine=True),
    "the id": lambda: O.filter(pk=ID),
    "the id as text": lambda: O.filter(pk=str(ID)),
    "the id as a Value": lambda: O.filter(pk=Value(str(ID))),
    "a number as id": lambda: Line.objects.filter(pk=NUMBER),
    "a foreign key's id": lambda: O.filter(customer_id=ID),
    "a foreign key's object": lambda: O.filter(customer=customer),
    "a foreign key's objects": lambda: O.filter(customer__in=[customer]),
    "a foreign key's object in Q": lambda: O.filter(Q(customer=customer)),
    "a foreign key's pk": lambda: O.filter(customer__pk=ID),
    "a joined key": lambda: Line.objects.filter(order__tenant_id=3),
    "a joined id": lambda: Line.objects.filter(order__customer__id=ID),
    "a reverse join's key": lambda: Customer.objects.filter(orders__tenant_id=3),
    "a reverse join's id": lambda: Tag.objects.filter(orders=order),
    "a key that is the id": lambda: Account.objects.filter(pk=ID),
    "a key that names the id": lambda: Entry.objects.filter(account_id=ID),
    "a composite id": lambda: Ledger.objects.filter(pk=(3, 1)),
    "a composite id as text": lambda: Ledger.objects.filter(pk=("3", "1")),
    "composite ids": lambda: Ledger.objects.filter(pk__in=[(3, 1), (3, 2)]),
    "and": lambda: O.filter(status="new", tenant_id=3),
    "and, of a key and an id": lambda: O.filter(pk=ID, tenant_id=3),
    "and, of two sets": lambda: O.filter(tenant_id__in=[3, 4]).filter(tenant_id__in=[3, 5]),
    "or, the same key": lambda: O.filter(Q(tenant_id=3) | Q(tenant_id=3, status="new")),
    "or, a key and its id": lambda: O.filter(Q(tenant_id=3) | Q(pk=ID)),
    "or, inside and": lambda: O.filter(Q(status="new") | Q(quantity=1), tenant_id=3),
    "xor": lambda: O.filter(Q(tenant_id=3) ^ Q(tenant_id=3, status="new")),
    "negated twice": lambda: O.filter(~~Q(tenant_id=3)),
    "excluded negation": lambda: O.exclude(~Q(tenant_id=3)),
    "De Morgan": lambda: O.filter(~(~Q(tenant_id=3) | Q(status="new"))),
    "exclude of something else": lambda: O.filter(tenant_id=3).exclude(status="new"),
    "queryset and": lambda: O.filter(tenant_id=3) & O.filter(status="new"),
    "with something unknown": lambda: O.filter(tenant_id=3).extra(where=["1 = 1"]),
    "sliced and ordered": lambda: O.filter(tenant_id=3).order_by("-created").distinct()[5:9],
    "grouped": lambda: O.values("status").annotate(n=Count("lines")).filter(tenant_id=3, n__gt=1),
    "a proxy": lambda: PaidOrder.objects.filter(tenant_id=3),
    "a union of the same key": lambda: O.filter(tenant_id=3).union(Line.objects.filter(tenant_id=3)),
    "for_key": lambda: O.for_key("3"),
}

SEVERAL: dict[str, tuple[Callable[[], QuerySet[Any]], set[int]]] = {
    "in": (lambda: O.filter(tenant_id__in=[3, 4]), {TENANT, OTHER}),
    "in, ids": (lambda: O.filter(pk__in=[ID, OTHER_ID]), {TENANT, OTHER}),
    "or": (lambda: O.filter(Q(tenant_id=3) | Q(tenant_id=4)), {TENANT, OTHER}),
    "or, over a join": (lambda: Line.objects.filter(Q(tenant_id=4) | Q(order__tenant_id=3)), {TENANT, OTHER}),
    "xor": (lambda: O.filter(Q(tenant_id=3) ^ Q(tenant_id=4)), {TENANT, OTHER}),
    "queryset or": (lambda: O.filter(tenant_id=3) | O.filter(tenant_id=4), {TENANT, OTHER}),
    "queryset or, of an object": (lambda: O.filter(customer=customer) | O.filter(tenant_id=4), {TENANT, OTHER}),
    "queryset xor, of an object": (lambda: O.filter(customer=customer) ^ O.filter(tenant_id=4), {TENANT, OTHER}),
    "union": (lambda: O.filter(tenant_id=3).union(O.filter(tenant_id=4)), {TENANT, OTHER}),
    "composite ids": (lambda: Ledger.objects.filter(pk__in=[(3, 1), (4, 1)]), {TENANT, OTHER}),
    "key 0": (lambda: O.filter(tenant_id=0), {bucket_of(0, model=Order)}),
    "the empty string": (lambda: Device.objects.filter(serial=""), {bucket_of("", model=Device)}),
    "a key that is a foreign key": (
        lambda: Reading.objects.filter(device_id="N-1"),
        {bucket_of("N-1", model=Device)},
    ),
    "a joined natural key": (lambda: Reading.objects.filter(device__serial="N-1"), {bucket_of("N-1", model=Device)}),
    "a negative key": (lambda: O.filter(tenant_id=-7), {bucket_of(-7, model=Order)}),
}

NONE: dict[str, Callable[[], QuerySet[Any]]] = {
    "two keys at once": lambda: O.filter(tenant_id=3).filter(tenant_id=4),
    "a key and another bucket's id": lambda: O.filter(tenant_id=3, pk=OTHER_ID),
    "an empty list": lambda: O.filter(tenant_id__in=[]),
    "a list of None": lambda: O.filter(tenant_id__in=[None]),
    "the key is None": lambda: O.filter(tenant_id=None),
    "the key is null": lambda: O.filter(tenant_id__isnull=True, status="new"),
    "a key that is a foreign key is None": lambda: Entry.objects.filter(account=None),
    "the id is None": lambda: O.filter(pk=None),
    "a composite id is null": lambda: Ledger.objects.filter(pk__isnull=True),
    "a part of a composite id is None": lambda: Ledger.objects.filter(number=None),
    "the id is None, over a join": lambda: Line.objects.filter(Q(pk=None) & Q(order__status="new")),
    "none()": lambda: O.none(),
    "none() and a key": lambda: O.filter(tenant_id=3).none(),
    "an empty list or an empty list": lambda: O.filter(Q(pk__in=[]) | Q(tenant_id__in=[])),
}

ANY: dict[str, Callable[[], QuerySet[Any]]] = {
    "all": lambda: O.all(),
    "another field": lambda: O.filter(status="new"),
    "or with another field": lambda: O.filter(Q(tenant_id=3) | Q(status="new")),
    "or with nothing proved, first": lambda: O.filter(Q(status="new") | Q(tenant_id=3)),
    "xor with another field": lambda: O.filter(Q(tenant_id=3) ^ Q(status="new")),
    "negated xor": lambda: O.filter(~(Q(tenant_id=3) ^ Q(tenant_id=4))),
    "exclude": lambda: O.exclude(tenant_id=3),
    "a negated list": lambda: O.filter(~Q(tenant_id__in=[3])),
    "a negated and": lambda: O.filter(~Q(tenant_id=3, status="new")),
    "a negated empty list": lambda: O.exclude(pk__in=[]),
    "not none": lambda: O.exclude(tenant_id__in=[]),
    "a comparison": lambda: O.filter(tenant_id__gte=3, tenant_id__lte=3),
    "a range": lambda: O.filter(tenant_id__range=(3, 3)),
    "is not null": lambda: O.filter(tenant_id__isnull=False),
    "is null, in a row that may be missing": lambda: Customer.objects.filter(orders__tenant_id=None),
    "is null, in a row that may be missing, by its id": lambda: Customer.objects.filter(orders=None),
    "a foreign key is null": lambda: O.filter(customer=None),
    "not null": lambda: O.exclude(tenant_id=None),
    "is null or": lambda: O.filter(Q(tenant_id=None) | Q(status="new")),
    "another column": lambda: O.filter(tenant_id=F("quantity")),
    "a list with another column": lambda: O.filter(tenant_id__in=[3, F("quantity")]),
    "in, Values": lambda: O.filter(tenant_id__in=[Value("3"), 3]),
    "a Value that is no number": lambda: O.filter(tenant_id=Value("x")),
    "a cast value": lambda: O.filter(tenant_id=Cast(Value("3"), IntegerField())),
    "a cast key": lambda: O.annotate(t=Cast("tenant_id", TextField())).filter(t="3"),
    "a function of the key": lambda: O.annotate(t=Abs("tenant_id")).filter(t=3),
    "arithmetic on the key": lambda: O.annotate(t=F("tenant_id") + 0).filter(t=3),
    "a case": lambda: O.annotate(t=Case(When(status="new", then="tenant_id"), default=Value(3))).filter(t=3),
    "raw SQL": lambda: O.filter(tenant_id=RawSQL("3", [])),
    "extra": lambda: O.extra(where=["tenant_id = 3"]),
    "iexact": lambda: Device.objects.filter(serial__iexact="N-1"),
    "startswith": lambda: Device.objects.filter(serial__startswith="N-1"),
    "a subquery": lambda: O.filter(tenant_id__in=O.filter(tenant_id=3).values("tenant_id")),
    "a scalar subquery": lambda: O.filter(tenant_id=O.filter(tenant_id=3).values("tenant_id")[:1]),
    "exists": lambda: O.filter(Exists(Line.objects.filter(order=OuterRef("pk"), tenant_id=3))),
    "an annotated condition that is false": lambda: O.annotate(mine=Q(tenant_id=3)).filter(mine=False),
    "an aggregate": lambda: O.values("status").annotate(n=Count("tenant_id")).filter(n=3),
    "an excluded join": lambda: Line.objects.exclude(order__tenant_id=3),
    "a union with a part that names nothing": lambda: O.filter(tenant_id=3).union(O.all()),
    "a part of a composite id": lambda: Ledger.objects.filter(number=1),
}


@pytest.mark.parametrize("queryset", ONE.values(), ids=ONE)
def test_one_bucket(queryset: Callable[[], QuerySet[Any]]) -> None:
    assert buckets_of(queryset().query) == frozenset({TENANT})


@pytest.mark.parametrize(("queryset", "expected"), SEVERAL.values(), ids=SEVERAL)
def test_exact_set_of_buckets(queryset: Callable[[], QuerySet[Any]], expected: set[int]) -> None:
    assert buckets_of(queryset().query) == frozenset(expected)


@pytest.mark.parametrize("queryset", NONE.values(), ids=NONE)
def test_no_row(queryset: Callable[[], QuerySet[Any]]) -> None:
    assert buckets_of(queryset().query) == NO_ROW


@pytest.mark.parametrize("queryset", ANY.values(), ids=ANY)
def test_nothing_proved(queryset: Callable[[], QuerySet[Any]]) -> None:
    assert buckets_of(queryset().query) is None


def test_an_id_of_a_bucket_that_does_not_exist(settings: Any) -> None:
    settings.SHARDING = settings.SHARDING | {"BUCKETS": 16}
    assert buckets_of(O.filter(pk=ids.new_uuid(17)).query) == NO_ROW
    assert buckets_of(O.filter(pk=ids.new_uuid(15)).query) == frozenset({15})


def test_a_uuid_that_was_made_elsewhere() -> None:
    assert buckets_of(O.filter(pk=uuid.UUID(int=0)).query) == frozenset({0})

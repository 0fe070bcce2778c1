"""
Writers who go through the door, as applications do.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, ClassVar

from django.db import transaction

from tests.moving.ledger.book import Book, shape
from tests.shop.models import Customer, Line, Order


class Undo(Exception):
    """What a block raises that is not to be."""


@dataclass
class Writer:
    """One thread's work, a step at a time."""

    number: int
    #: One of each bucket that moves.
    tenants: Sequence[int]
    rng: random.Random
    #: (id, tenant) of rows that are there for this writer.
    given: Sequence[tuple[str, int]] = ()
    #: Seconds for which a block stays open at most.
    longest: float = 2.0
    #: Whether this process knows where the buckets are, so that it may read.
    reads: bool = True
    book: Book = field(default_factory=Book)
    #: Status of the rows that are given, and their total.
    status: ClassVar[str] = ""
    total: ClassVar[int] = 0

    def __post_init__(self) -> None:
        self.made = 0
        self.orders: list[Order] = []
        for key, _ in self.given:
            self.note_given(key, self.total, None)

    def note_given(self, key: str, total: object, quantity: object) -> None:
        self.book.note("Order", key, Decimal(str(total)).quantize(Decimal("0.01")), quantity, self.status)

    def step(self) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Let go of what the thread has opened."""

    def name(self) -> str:
        self.made += 1
        return f"{self.number}-{self.made}"

    def tenant(self) -> int:
        return self.rng.choice(self.tenants)

    def note(self, order: Order) -> None:
        self.book.note("Order", order.pk, order.total, order.quantity, order.status)


def new_order(tenant: int, **values: Any) -> Order:
    return Order.objects.create(tenant_id=tenant, total=Decimal("1.00"), **values)


class Single(Writer):
    """Statements that commit by themselves."""

    def step(self) -> None:
        acts: list[Callable[[], None]] = [self.create]
        if self.orders:
            acts += [self.save, self.update, self.delete]
        if self.reads:
            acts += [self.get_or_create, self.read]
        self.rng.choice(acts)()

    def create(self) -> None:
        tenant = self.tenant()
        order = self.book.acknowledged(lambda: new_order(tenant, quantity=0))
        self.orders.append(order)
        self.note(order)

    def save(self) -> None:
        order = self.rng.choice(self.orders)
        order.quantity = self.rng.randrange(1000)
        self.book.acknowledged(order.save)
        self.note(order)

    def update(self) -> None:
        order = self.rng.choice(self.orders)
        order.quantity = self.rng.randrange(1000)
        rows = Order.objects.filter(tenant_id=order.tenant_id, pk=order.pk)
        assert self.book.acknowledged(lambda: rows.update(quantity=order.quantity)) == 1
        self.note(order)

    def delete(self) -> None:
        order = self.orders.pop(self.rng.randrange(len(self.orders)))
        key = order.pk
        assert self.book.acknowledged(lambda: Order.objects.filter(pk=key).delete())[0] == 1
        self.book.drop("Order", key)

    def get_or_create(self) -> None:
        tenant, name = self.tenant(), self.name()
        values = {"tenant_id": tenant, "email": f"{name}@example.com", "defaults": {"name": name}}
        customer, created = self.book.acknowledged(lambda: Customer.objects.get_or_create(**values))
        assert created
        self.book.note("Customer", customer.pk, name)
        again, created = self.book.acknowledged(lambda: Customer.objects.get_or_create(**values))
        assert (again.pk, created) == (customer.pk, False)

    def read(self) -> None:
        """Its own writes, of which this process has heard where they went."""
        if not self.orders:
            return
        key = self.rng.choice(self.orders).pk
        order = self.book.acknowledged(lambda: Order.objects.get(pk=key))
        assert shape(order.total, order.quantity, order.status) == self.book.of("Order", key)


class Blocks(Writer):
    """Blocks that are open for long, of which parts are taken back by savepoints, or all of it."""

    def step(self) -> None:
        tenant = self.tenant()
        change = self.rng.choice([order for order in self.orders if order.tenant_id == tenant] or [None])
        quantity, stays = self.rng.randrange(1000), self.rng.random() < 0.8
        pauses = [self.rng.uniform(0, self.longest / 2) * (self.rng.random() < 0.3) for _ in range(2)]

        def block() -> Order:
            with transaction.atomic(using="default"):
                order = new_order(tenant, quantity=quantity)
                time.sleep(pauses[0])
                try:
                    with transaction.atomic(using="default"):
                        new_order(tenant, status="undone")
                        Order.objects.filter(pk=order.pk).update(quantity=-1)
                        raise Undo
                except Undo:
                    pass
                if change is not None:
                    assert Order.objects.filter(pk=change.pk).update(quantity=quantity) == 1
                time.sleep(pauses[1])
                if not stays:
                    raise Undo
                return order

        try:
            order = self.book.acknowledged(block)
        except Undo:
            return
        self.orders.append(order)
        self.note(order)
        if change is not None:
            change.quantity = quantity
            self.note(change)


class Families(Writer):
    """Customers with orders and lines, written in one go on one or two shards, and deleted with all that is theirs."""

    def step(self) -> None:
        families = [
            self.family(tenant, self.name()) for tenant in self.rng.sample(self.tenants, self.rng.choice([1, 2]))
        ]

        def write() -> None:
            with transaction.atomic(using="default"):
                for rows in zip(*families, strict=True):
                    model = type(rows[0][0])
                    model.objects.bulk_create([row for each in rows for row in each])

        self.book.acknowledged(write)
        for family in families:
            self.note_family(family, self.book.note)
        if self.rng.random() < 0.7:
            family = self.rng.choice(families)
            customer = family[0][0].pk
            found = self.book.acknowledged(lambda: Customer.objects.filter(pk=customer).delete())
            assert found[1] == {"shop.Customer": 1, "shop.Order": 2, "shop.Line": 4}, found
            self.note_family(family, lambda table, key, *values: self.book.drop(table, key))

    def family(self, tenant: int, name: str) -> tuple[list[Customer], list[Order], list[Line]]:
        customer = Customer(tenant_id=tenant, name=name, email=f"{name}@example.org")
        customer.pk = Customer._meta.pk.get_pk_value_on_save(customer)
        orders = [Order(tenant_id=tenant, customer=customer, total=Decimal(f"{n}.00")) for n in range(2)]
        for order in orders:
            order.pk = Order._meta.pk.get_pk_value_on_save(order)
        # Their numbers are made as they are written, which may be in the instant of a switch.
        lines = [Line(tenant_id=tenant, order=order, product=name, amount=n) for order in orders for n in range(2)]
        return [customer], orders, lines

    def note_family(self, family: Any, act: Callable[..., None]) -> None:
        customers, orders, lines = family
        act("Customer", customers[0].pk, customers[0].name)
        for order in orders:
            act("Order", order.pk, order.total, order.quantity, order.status)
        for line in lines:
            act("Line", line.pk, line.amount)

"""
Random atomic blocks that are really committed: trees of blocks, of which each keeps its work or is rolled back.

They write on several databases, global rows among them; and what they do is the same on one database.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import F, Value
from django.db.models.functions import Concat
from hypothesis import strategies as st

from sharding import bucket_of, ids, routing
from tests.differential.data import REFERENCE, TENANTS
from tests.layouts import CLUSTER
from tests.shop.models import Customer, Line, Order, Region

#: The last one is global.
MODELS = (Line, Order, Customer, Region)


@dataclass(frozen=True)
class Block:
    """Statements and blocks, one after the other; in the end the work is kept or rolled back."""

    steps: tuple[Any, ...]
    keeps: bool

    def constructs(self) -> Counter[str]:
        found = Counter({"kept" if self.keeps else "rolled back": 1})
        for step in self.steps:
            if isinstance(step, Block):
                found.update(f"nested {name}" for name in ("kept" if step.keeps else "rolled back",))
                found += step.constructs()
            else:
                found[step[0]] += 1
        return found


_tenants = st.sampled_from(TENANTS)
_several = st.lists(_tenants, min_size=2, max_size=5, unique=True).map(tuple)
_numbers = st.integers(0, 3)
_statements = st.one_of(
    st.tuples(st.just("create"), _tenants, _numbers),
    st.tuples(st.just("create"), _tenants, _numbers),
    st.tuples(st.just("update"), _several, _numbers),
    st.tuples(st.just("delete"), _several, _numbers),
    st.tuples(st.just("bulk_create"), _several, _numbers),
    st.tuples(st.just("global create"), _tenants, _numbers),
    st.tuples(st.just("global update"), _tenants, _numbers),
    st.tuples(st.just("count"), _several, _numbers),
    st.tuples(st.just("on_commit"), _tenants, _numbers),
    # Refused at once, because of the first customer with such an address; and at the commit.
    st.tuples(st.just("taken"), _tenants, _numbers),
    st.tuples(st.just("missing"), _tenants, _numbers),
)
_keeps = st.sampled_from([True, True, True, False])


def _of(steps: st.SearchStrategy[Any]) -> st.SearchStrategy[Block]:
    return st.builds(Block, st.lists(steps, min_size=1, max_size=5).map(tuple), _keeps)


_nested = st.recursive(_of(_statements), lambda inner: _of(st.one_of(_statements, _statements, inner)), max_leaves=4)
#: What one thread does: a few outermost blocks, each of which commits or does not.
programs = st.lists(_nested, min_size=1, max_size=3).map(tuple)


class _RollBack(Exception):
    """Ends a block whose work is not kept."""


class Run:
    """One side, the cluster or the reference database, with what it answers."""

    def __init__(self, side: str) -> None:
        self.using = REFERENCE if side == REFERENCE else "default"
        self.answers: list[Any] = []
        self._called: list[Any] = []

    def program(self, blocks: tuple[Block, ...]) -> list[Any]:
        for block in blocks:
            self._block(block)
            self.answers.append((tuple(self._called), self._state()))
        return self.answers

    def _block(self, block: Block) -> None:
        try:
            with transaction.atomic(using=self.using):
                for step in block.steps:
                    if isinstance(step, Block):
                        self._block(step)
                    else:
                        self.answers.append(self._statement(*step))
                if not block.keeps:
                    raise _RollBack
        except _RollBack:
            self.answers.append("rolled back")
        except IntegrityError:
            self.answers.append("refused")

    def _statement(self, name: str, where: Any, number: int) -> Any:
        orders = self._rows(Order)
        if name == "create":
            return orders.create(tenant_id=where, quantity=number).quantity
        if name == "bulk_create":
            return len(orders.bulk_create([Order(tenant_id=tenant, quantity=number) for tenant in where]))
        if name == "update":
            return orders.filter(tenant_id__in=where, quantity__lte=number).update(quantity=F("quantity") + 1)
        if name == "delete":
            return orders.filter(tenant_id__in=where, quantity=number).delete()[0]
        if name == "count":
            return orders.filter(tenant_id__in=where, quantity__gte=number).count()
        if name == "on_commit":
            return transaction.on_commit(lambda: self._called.append((where, number)), using=self.using)
        return self._other(name, where, number)

    def _other(self, name: str, tenant: int, number: int) -> Any:
        if name == "global create":
            return self._rows(Region).create(name=f"{tenant}").name
        if name == "global update":
            regions = self._rows(Region).filter(name=f"{tenant}")
            return regions.update(name=Concat(F("name"), Value("x")))
        if name == "taken":
            return self._rows(Customer).create(tenant_id=tenant, email=f"{number}@example.org").email
        missing = ids.new_uuid(bucket_of(tenant, model=Order))
        return self._rows(Line).create(tenant_id=tenant, order_id=missing, product="lost").product

    def _rows(self, model: Any) -> Any:
        return model.objects.using(REFERENCE) if self.using == REFERENCE else model.objects

    def _state(self) -> Any:
        found = [self._rows(Order).filter(tenant_id__in=TENANTS).values_list("tenant_id", "quantity")]
        found.append(self._rows(Customer).filter(tenant_id__in=TENANTS).values_list("tenant_id", "email"))
        found.append(self._rows(Line).filter(tenant_id__in=TENANTS).values_list("tenant_id", "product"))
        found.append(self._rows(Region).values_list("name"))
        return tuple(tuple(sorted(rows)) for rows in found)


def clear() -> None:
    """Delete every row on both sides."""
    for alias in (*CLUSTER, REFERENCE):
        with routing.native(alias):
            for model in MODELS if alias in {"default", REFERENCE} else MODELS[:-1]:
                model.objects.using(alias).all()._raw_delete(alias)

"""
sharding.atomic() inside Django's TestCase, whose transactions are the test's own and never commit.
"""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connections, transaction
from django.test import TestCase

import sharding
from tests.blocks import Undone, undone
from tests.layouts import CLUSTER, tenant_on
from tests.shop.models import Order, Region
from tests.transactions.books import undo

DATABASES = [*CLUSTER, "reference"]


def names(alias: str) -> list[str]:
    return sorted(Region.objects.using(alias).values_list("name", flat=True))


def add(name: str, *aliases: str) -> None:
    for alias in aliases or ("reference",):
        Region.objects.using(alias).create(name=name)


class JoinedTests(TestCase):
    databases = DATABASES
    tenant: int

    @classmethod
    def setUpTestData(cls) -> None:
        cls.tenant = tenant_on("shard_a")
        with sharding.atomic("default", "reference"):
            add("from the class", "default", "reference")

    def _write_everywhere(self) -> None:
        assert (names("default"), names("reference")) == (["from the class"], ["from the class"])
        with sharding.atomic("default", "reference"):
            add("kept", "default", "reference")
            Order.objects.create(tenant_id=self.tenant, status="kept")
        assert (names("default"), names("reference")) == (["from the class", "kept"],) * 2

    def test_one_test_writes(self) -> None:
        self._write_everywhere()

    def test_another_one_sees_nothing_of_it(self) -> None:
        self._write_everywhere()

    def test_a_rollback_undoes_all_of_the_block(self) -> None:
        with pytest.raises(Undone), sharding.atomic("reference"):  # noqa: PT012 - a whole block
            add("lost", "default", "reference")
            Order.objects.create(tenant_id=self.tenant, status="lost")
            raise Undone
        assert (names("default"), names("reference")) == (["from the class"], ["from the class"])
        assert not Order.objects.filter(tenant_id=self.tenant).exists()

    def test_nested_blocks(self) -> None:
        with sharding.atomic("reference"):
            add("kept")
            with undone():
                add("lost")
            with transaction.atomic(using="default"):
                add("also kept")
        assert names("reference") == ["also kept", "from the class", "kept"]

    def test_it_leaves_at_the_end_of_the_block(self) -> None:
        """As outside of a TestCase, where it has committed by then."""
        with sharding.atomic("reference"):
            add("joined")
        with undone():
            add("by itself")
        assert names("reference") == ["by itself", "from the class", "joined"]
        with transaction.atomic(using="default"), sharding.atomic("reference"):
            add("inner")
        with undone():
            add("by itself, too")
        assert len(names("reference")) == 5

    def test_compensations_are_dropped(self) -> None:
        with sharding.atomic("reference"):
            sharding.compensate(undo, "never")
            door: Any = connections["default"]
            assert len(door.compensations) == 1
        assert door.compensations == []

    def test_callbacks(self) -> None:
        with self.captureOnCommitCallbacks(using="default", execute=True) as callbacks, sharding.atomic("reference"):
            transaction.on_commit(lambda: add("called"))
        assert len(callbacks) == 1
        assert names("reference") == ["called", "from the class"]

    def test_a_durable_block_is_an_outermost_one(self) -> None:
        with sharding.atomic("reference", durable=True):
            add("kept")
        assert "kept" in names("reference")

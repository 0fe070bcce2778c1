"""Streams that are cut on the way: what has come is right, what is missing is named, and nothing is left open."""

from __future__ import annotations

import os
import signal
from typing import Any
from unittest.mock import patch

import pytest
from django.db import OperationalError, connections, transaction
from django.db.models import F, Func, JSONField

from aggregator import fan_out
from sharding.errors import FanOutTimeout, ShardsUnavailable
from tests.layouts import CLUSTER, SHOP_ONLY, tenant_on
from tests.policy.trouble import BOUND, in_the_end, late, paused, terminate, terminate_streams, took_less_than
from tests.shop.models import Order

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def begun(**options: Any) -> Any:
    """Return a stream of which the first chunk has come from every shard."""
    rows = fan_out(Order.objects, **options).order_by("total").iterator(chunk_size=1)
    assert next(rows).total == 0
    return rows


def test_a_session_that_ends() -> None:
    rows = begun()
    terminate_streams("shard_b")
    with pytest.raises(ShardsUnavailable) as caught:
        list(rows)
    assert list(caught.value.failures) == ["shard_b"]
    assert len(list(fan_out(Order.objects).iterator(chunk_size=1))) == 16


def test_a_session_that_ends_and_may_be_missing() -> None:
    """The rows that had come stay: 2 is shard_b's, and 6 may have been fetched ahead."""
    rows = begun(on_error="partial")
    terminate_streams("shard_b")
    found = [int(order.total) for order in rows]
    assert [number for number in found if number != 6] == [1, 2, *(n for n in range(3, 16) if n % 4 != 2)]
    assert found == sorted(found)
    assert list(rows.missing) == ["shard_b"]
    assert isinstance(rows.missing["shard_b"], OperationalError)
    assert fan_out(Order.objects).count() == 16


def test_a_server_that_pauses() -> None:
    def check(seconds: float) -> None:
        rows = begun(timeout=seconds)
        with paused("shard_b"), took_less_than(seconds + BOUND), pytest.raises(FanOutTimeout) as caught:
            list(rows)
        late(caught.value.failures, "shard_b")

    in_the_end(check)
    assert fan_out(Order.objects).count() == 16


def test_a_server_that_pauses_and_may_be_missing() -> None:
    def check(seconds: float) -> None:
        rows = begun(timeout=seconds, on_error="partial")
        with paused("shard_b"), took_less_than(seconds + BOUND):
            found = list(rows)
        late(rows.missing, "shard_b")
        assert len(found) in {12, 13}

    in_the_end(check)


def ranked(**options: Any) -> Any:
    """Return a stream whose order one of the shards is asked for, on the caller's own session."""
    by_json = Func(F("status"), function="to_jsonb", output_field=JSONField())
    rows = fan_out(Order.objects, shards=["shard_a", "shard_b"], **options).order_by(by_json).iterator(chunk_size=1)
    assert next(rows).status == "shard_a"
    return rows


@pytest.mark.parametrize("pooler", [False, True], ids=["cursors", "batches"])
def test_the_deadline_is_that_of_the_order_too(pooler: bool) -> None:
    def check(seconds: float) -> None:
        rows = ranked(timeout=seconds)
        pid = connections["shard_a"].connection.info.backend_pid
        os.kill(pid, signal.SIGSTOP)
        try:
            with took_less_than(seconds + BOUND), pytest.raises(FanOutTimeout) as caught:
                list(rows)
        finally:
            os.kill(pid, signal.SIGCONT)
        late(caught.value.failures, "shard_a")

    with patch.dict(connections["default"].settings_dict, DISABLE_SERVER_SIDE_CURSORS=pooler):
        in_the_end(check)
    assert fan_out(Order.objects).count() == 16


def test_another_shard_knows_the_order_too() -> None:
    rows = ranked(on_error="partial")
    terminate("shard_a")
    assert [order.status for order in rows] == ["shard_a"] * 3 + ["shard_b"] * 4
    assert list(rows.missing) == ["shard_a"]


def test_each_wait_has_the_whole_time() -> None:
    """The caller's own time, between the rows, is not counted."""

    def check(seconds: float) -> None:
        rows = begun(timeout=seconds)
        with connections["default"].cursor() as cursor:
            cursor.execute("SELECT pg_sleep(%s)", [seconds + 0.2])
        assert len(list(rows)) == 15

    in_the_end(check)


def test_one_shard_that_pauses() -> None:
    tenant = tenant_on("shard_b")
    Order.objects.bulk_create([Order(tenant_id=tenant, total=number) for number in range(20, 30)])

    def check(seconds: float) -> None:
        rows = fan_out(Order.objects.filter(tenant_id=tenant), timeout=seconds).iterator(chunk_size=1)
        next(rows)
        with paused("shard_b"), took_less_than(seconds + BOUND), pytest.raises(FanOutTimeout):
            list(rows)

    in_the_end(check)
    assert fan_out(Order.objects).count() == 26


def test_a_partial_stream_that_is_read_inside_a_block() -> None:
    """The block is lost with the shard, so that the stream cannot go on without it."""

    def block() -> None:
        rows = fan_out(Order.objects, on_error="partial").order_by("total").iterator(chunk_size=1)
        with transaction.atomic(using="default"):
            next(rows)
            terminate("shard_b")
            list(rows)

    with pytest.raises(ShardsUnavailable) as caught:
        block()
    assert list(caught.value.failures) == ["shard_b"]


def test_inside_a_block() -> None:
    def block() -> None:
        with transaction.atomic(using="default"):
            rows = begun()
            terminate("shard_b")
            list(rows)

    with pytest.raises(ShardsUnavailable):
        block()
    with transaction.atomic(using="default"):
        assert len(list(fan_out(Order.objects).iterator(chunk_size=1))) == 16

"""Commits where no thread is to be had: there are too many, or the program is about to end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from django.db import connections, transaction

from sharding.commits import at_once, background, recovery, two_phase
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.servers import ROOT
from tests.shop.models import Order
from tests.transactions.conftest import Rows

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def _refuse(*args: Any) -> Any:
    raise RuntimeError("can't start new thread")


def _made(rows: Rows) -> list[int]:
    return [Order.objects.filter(tenant_id=tenant, status="made").count() for tenant in (rows.a, rows.b)]


@pytest.mark.parametrize("after_the_decision", [False, True])
def test_the_caller_does_it_itself(after_the_decision: bool, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[int] = []
    decide = two_phase._decide

    def decided(*args: Any) -> Any:
        found = decide(*args)
        monkeypatch.setattr(ThreadPoolExecutor, "submit", _refuse)
        return found

    if after_the_decision:
        monkeypatch.setattr(two_phase, "_decide", decided)
    else:
        monkeypatch.setattr(ThreadPoolExecutor, "submit", _refuse)
    with transaction.atomic(using="default"):
        transaction.on_commit(lambda: called.append(1))
        Order.objects.create(tenant_id=rows.a, status="made")
        Order.objects.create(tenant_id=rows.b, status="made")
    monkeypatch.undo()
    assert (_made(rows), called) == ([1, 1], [1])


def test_an_error_is_the_callers_too(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ThreadPoolExecutor, "submit", _refuse)
    shards = [connections["shard_a"], connections["shard_b"]]
    [(failed, error)] = at_once.at_once([_Named(each) for each in shards], _fail_on_b)
    assert (failed.connection.alias, str(error)) == ("shard_b", "b")


class _Named:
    def __init__(self, connection: Any) -> None:
        self.connection = connection


def _fail_on_b(each: _Named) -> None:
    if each.connection.alias == "shard_b":
        raise ValueError("b")


def test_recovery_begins_with_the_next_one_that_asks(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recovery, "_thread", None)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", _refuse)
        recovery.finish_later()
        assert recovery._thread is None
    began = threading.Event()
    monkeypatch.setattr(recovery, "_finish_all", began.set)
    recovery.finish_later()
    assert began.wait(60)


def test_a_connection_is_had_without_the_threads_of_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "allowed", True)
    monkeypatch.setattr(background, "_begun", False)
    monkeypatch.setattr(recovery, "finish_later", lambda: None)
    monkeypatch.setattr(threading.Thread, "start", _refuse)
    background.begin()
    assert not background._begun


SCRIPT = """
import sys, threading, time
import django
django.setup()
from django.db import transaction
from tests.shop.models import Order

def write():
    threading.main_thread().join()
    with transaction.atomic(using="default"):
        for tenant in sys.argv[1:]:
            Order.objects.create(tenant_id=int(tenant), status="made")

threading.Thread(target=write).start()
"""
SETTINGS = """
import json, os
from tests.settings import *
DATABASES = json.loads(os.environ["TEST_DATABASES"])
"""


def test_a_thread_that_outlives_the_main_thread(rows: Rows, tmp_path: Any) -> None:
    """Python starts no more threads then."""
    names = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")
    databases = {alias: {name: connections[alias].settings_dict[name] for name in names} for alias in connections}
    (tmp_path / "outlived_settings.py").write_text(SETTINGS)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(rows.a), str(rows.b)],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}",
            "DJANGO_SETTINGS_MODULE": "outlived_settings",
            "TEST_DATABASES": json.dumps(databases),
        },
        capture_output=True,
        text=True,
        timeout=240,
    )
    # Python 3.12 starts no thread at all then, and the log says what is left undone by that.
    assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
    assert _made(rows) == [1, 1]

"""
MariaDB joins a block: it cannot prepare as PostgreSQL does, keeps one savepoint of a name, and cannot say if it wrote.
"""

from __future__ import annotations

import threading
from typing import Any

import pytest
from django.db import OperationalError, connections, transaction

import sharding
from sharding.commits import parts
from sharding.errors import CrossShardTransaction, PartialCommit
from tests.blocks import Undone, undone
from tests.layouts import SHOP_ONLY
from tests.messages import whole
from tests.shop.models import Order
from tests.transactions.books import books_database, logged, recover, sequential, undo
from tests.transactions.books import undone as compensated
from tests.transactions.conftest import Rows, stored
from tests.transactions.mariadb_server import end_session, mariadb_database

__all__ = ["books_database", "mariadb_database", "sequential"]

pytestmark = [
    pytest.mark.mariadb,
    pytest.mark.django_db(databases="__all__", transaction=True, available_apps=SHOP_ONLY),
]


@pytest.fixture(autouse=True)
def _no_events(transactional_db: None) -> None:
    with connections["mariadb"].cursor() as cursor:
        cursor.execute("DELETE FROM event")


def add(kind: str) -> None:
    with connections["mariadb"].cursor() as cursor:
        cursor.execute("INSERT INTO event VALUES (%s)", [kind])


def kinds() -> list[str]:
    with connections["mariadb"].cursor() as cursor:
        cursor.execute("SELECT kind FROM event ORDER BY kind")
        return [kind for (kind,) in cursor.fetchall()]


def block(rows: Rows) -> None:
    with sharding.atomic("mariadb"):
        Order.objects.create(tenant_id=rows.a, status="made")
        add("made")
        sharding.compensate(undo, "all")


def test_it_is_refused_unless_a_setting_says_otherwise(rows: Rows) -> None:
    before = stored()
    message = (
        "This atomic block wrote to shard_a, mariadb, and was rolled back on all of them: mariadb cannot prepare "
        "transactions. Put it on PostgreSQL; or write to one database per block; or set "
        "SHARDING['WITHOUT_TWO_PHASE_COMMIT'] to 'sequential', and they commit one after the other."
    )
    with pytest.raises(CrossShardTransaction, match=whole(message)):
        block(rows)
    assert (stored(), kinds()) == (before, [])
    with sharding.atomic("mariadb"):
        add("alone")
    assert kinds() == ["alone"]


def test_savepoints(rows: Rows) -> None:
    """Its connection counts its savepoints from 1, as the door does."""
    with sharding.atomic("mariadb"):
        add("kept")
        with undone():
            add("lost")
            with transaction.atomic(using="mariadb"):
                add("lost, too")
            with pytest.raises(Undone), transaction.atomic(using="mariadb"):  # noqa: PT012 - a whole block
                add("lost at once")
                raise Undone
        with transaction.atomic(using="default"), transaction.atomic(using="mariadb"):
            add("kept, too")
    assert kinds() == ["kept", "kept, too"]


@pytest.mark.usefixtures("sequential")
class TestSequential:
    def test_all_commit(self, rows: Rows) -> None:
        block(rows)
        assert (kinds(), compensated(), logged()) == (["made"], [], [])

    def test_a_session_that_is_lost_at_its_commit(self, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
        connection: Any = connections["mariadb"]
        commit = connection._commit

        def losing() -> None:
            end_session()
            commit()

        monkeypatch.setattr(connection, "_commit", losing)
        with pytest.raises(PartialCommit) as raised:
            block(rows)
        assert raised.value.rolled_back == ["mariadb"]
        monkeypatch.undo()
        assert (kinds(), compensated(), logged()) == ([], ["all"], [])

    def test_marks_are_waited_for(self, rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
        """Recovery meets a block that is at work, and cannot tell until its part has ended."""
        block(rows)
        monkeypatch.setattr(parts, "PATIENCE", 1)
        with transaction.atomic(using="mariadb"):
            parts.write(connections["mariadb"], "slow.1")
            found: list[Any] = []
            thread = threading.Thread(target=lambda: found.append(_asked("slow.1")))
            thread.start()
            thread.join()
            assert isinstance(found[0], OperationalError)
        assert _asked("slow.1") is True
        assert _asked("slow.2") is False
        assert recover()["failures"] == {}


def _asked(name: str) -> Any:
    try:
        return parts.is_committed("mariadb", name)
    except OperationalError as error:
        return error
    finally:
        if threading.current_thread() is not threading.main_thread():
            connections.close_all()

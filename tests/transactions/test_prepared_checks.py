"""The checks of max_prepared_transactions, on a server that has none, and on one with few."""

from __future__ import annotations

from typing import Any

import pytest
from django.core.checks import Warning
from django.db import connections

from sharding import cluster_checks
from sharding.cluster_checks import check_stored_cluster
from tests.transactions.unprepared_server import ledger_database

__all__ = ["ledger_database"]

pytestmark = [
    pytest.mark.django_db(databases="__all__"),
    pytest.mark.filterwarnings("ignore:Overriding setting DATABASES:UserWarning"),
]
HINT = "Set it to max_connections (200) and restart the server."


@pytest.fixture
def ledger(settings: Any) -> None:
    """The server is a shard's."""
    settings.SHARDING = {**settings.SHARDING, "SHARDS": [*settings.SHARDING["SHARDS"], "ledger"]}


def test_none(ledger: None, settings: Any) -> None:
    assert check_stored_cluster(None, databases=["ledger"]) == [
        Warning(
            "The server of 'ledger' has max_prepared_transactions = 0, so every block that writes there and to another "
            "database is rolled back.",
            hint=f"{HINT} Where that cannot be, see SHARDING['WITHOUT_TWO_PHASE_COMMIT'].",
            id="sharding.W044",
        )
    ]
    settings.SHARDING = {**settings.SHARDING, "WITHOUT_TWO_PHASE_COMMIT": "sequential"}
    assert check_stored_cluster(None, databases=["ledger"]) == []


def test_few(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check_stored_cluster(None, databases=["shard_a"]) == []
    with connections["shard_a"].cursor() as cursor:
        cursor.execute("SHOW max_prepared_transactions")
        (number,) = cursor.fetchone()
    monkeypatch.setattr(cluster_checks, "FEWEST_PREPARED", int(number) / 200 + 0.001)
    assert check_stored_cluster(None, databases=["shard_a"]) == [
        Warning(
            f"The server of 'shard_a' has max_prepared_transactions = {number} for 200 connections. When more blocks "
            f"over several databases commit at one time, the others are rolled back.",
            hint=HINT,
            id="sharding.W045",
        )
    ]

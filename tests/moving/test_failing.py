"""
What is kept of an error, and shown: nothing that is in a row.
"""

from __future__ import annotations

import logging
from contextlib import closing

import psycopg
import pytest

from sharding.rebalance import failing, stored_moves
from tests.layouts import CLUSTER, SHOP_ONLY
from tests.moving.applications import session
from tests.moving.scenes import control_session

pytestmark = pytest.mark.django_db(databases=CLUSTER, transaction=True, available_apps=SHOP_ONLY)


def test_values_of_rows_are_neither_kept_nor_logged(scene, caplog):
    with closing(session("shard_a")) as connection:
        connection.execute("CREATE TEMP TABLE once (secret text PRIMARY KEY)")
        with pytest.raises(psycopg.errors.UniqueViolation) as caught:
            connection.execute("INSERT INTO once VALUES ('s3cr3t'), ('s3cr3t')")
    assert "s3cr3t" in str(caught.value)
    with control_session() as control, caplog.at_level(logging.INFO, "sharding"):
        failing.retry_later(control, stored_moves.read_one(control, scene.move.id).move, caught.value)
    assert scene.move.error == 'duplicate key value violates unique constraint "once_pkey"'
    assert scene.move.error in caplog.text
    assert "s3cr3t" not in caplog.text

"""
Raw SQL on `default`: refused when it names a sharded table, in whatever dress.
"""

from __future__ import annotations

import pytest
from django.db import connections

from sharding.errors import RawShardedSQL
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_cursor() -> None:
    with connections["default"].cursor() as cursor, pytest.raises(RawShardedSQL):
        cursor.execute("SELECT 1 FROM shop_order")

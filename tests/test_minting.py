"""
Minting of integer ids: never the same twice, whatever threads, forks, processes and rollbacks do.
"""

from __future__ import annotations

import pytest

from sharding import ids, minting
from tests.layouts import CLUSTER

pytestmark = pytest.mark.django_db(databases=CLUSTER)


def test_ids_hold_their_bucket() -> None:
    assert [ids.bucket_of_bigint(minting.new_bigint(bucket)) for bucket in (0, 7, 4095)] == [0, 7, 4095]

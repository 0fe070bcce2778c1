"""
The error classes: constructible, picklable, and with their facts as attributes.
"""

from __future__ import annotations

import pickle

from sharding.errors import ShardKeyMissing


def test_facts_survive_pickling() -> None:
    error = pickle.loads(pickle.dumps(ShardKeyMissing("No key.", model="shop.Order", field="tenant_id")))
    assert (str(error), error.model, error.field) == ("No key.", "shop.Order", "tenant_id")

"""
Settings of the bank: ``BANK_DATABASES`` in the environment holds DATABASES as JSON, ``BANK_SHARDING`` more of SHARDING.
"""

from __future__ import annotations

import json
import os

SECRET_KEY = "only for tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["sharding", "aggregator", "tests.bank"]
DATABASES = json.loads(os.environ["BANK_DATABASES"])
DATABASE_ROUTERS = ["sharding.router.ShardRouter"]
SHARDING = {
    "SHARDS": ["shard_a", "shard_b", "shard_c", "shard_d"],
    "RECOVER_AFTER": 0.5,
    # A client sends what its blocks need, and nothing else.
    "MAP_TTL": 3600,
    # Most tests look at what is left before anybody recovers.
    "RECOVER_IN_PROCESS": False,
    **json.loads(os.environ.get("BANK_SHARDING", "{}")),
}

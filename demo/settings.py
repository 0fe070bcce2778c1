"""
Settings of the demo. The databases come from the environment, as in any project; ``demo.servers`` fills it.

``reference`` is no part of the cluster: one database with Django's own ENGINE that holds all rows, to compare with.
"""

from __future__ import annotations

import os

import environ

from demo.servers import PLAIN_PREFIX, REFERENCE_VARIABLE
from sharding import env

SECRET_KEY = "only for the demo"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["sharding", "aggregator", "demo.flights"]

DATABASES = env.databases()
DATABASE_ROUTERS = ["sharding.router.ShardRouter"]
SHARDING = {
    # Only the owner of a bucket can write it, so buckets may move.
    "FENCE": "row",
    # 4,000 planes need no 4,096 buckets; a fifth of these moves while a reader waits.
    "BUCKETS": 512,
    # A move begins when every process has heard of it, and nobody wants to wait 30 seconds for that here.
    "MAP_TTL": 3.0,
}

for _name in sorted(os.environ):
    if _name == REFERENCE_VARIABLE or _name.startswith(PLAIN_PREFIX):
        # REFERENCE_URL becomes "reference", PLAIN_URL_A "plain_a".
        DATABASES[_name.lower().replace("_url", "")] = environ.Env.db_url_config(os.environ[_name])

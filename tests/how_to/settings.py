"""Settings of the project that the pages are about: a shop whose databases come from the environment."""

from __future__ import annotations

from sharding import env

SECRET_KEY = "only for tests"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["sharding", "aggregator", "tests.shop"]
DATABASES = env.databases()
DATABASE_ROUTERS = ["sharding.router.ShardRouter"]
SHARDING = {"FENCE": "row", "BUCKETS": 32, "MAP_TTL": 1.0}

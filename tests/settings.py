"""
Settings of the test project.

SHARDKIT_TEST_ENGINE   postgresql (default) or sqlite
SHARDKIT_TEST_SERVER   which servers ``tests.servers`` starts: 18 (default), 16, or debian15
SHARDKIT_TEST_CLUSTER  a name, for servers that no other run uses
SHARDKIT_TEST_MARIADB  1 runs the tests that need a MariaDB server beside the others
SHARDKIT_TEST_URLS     a JSON object of alias to URL; then nothing is started
SHARDKIT_KEEP_CLUSTER  1 leaves the servers running after the tests, for a quick next run
"""

from __future__ import annotations

from tests import servers

SECRET_KEY = "only for tests"
USE_TZ = True
TIME_ZONE = "UTC"
ROOT_URLCONF = "tests.urls"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
STATIC_URL = "static/"

INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    "rest_framework",
    "sharding",
    "aggregator",
    "tests.shop",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]

DATABASES = servers.databases()
DATABASE_ROUTERS = ["sharding.router.ShardRouter"]
# What is remembered for MAP_TTL is not read again in the middle of a test that counts statements.
SHARDING = {"SHARDS": ["shard_a", "shard_b", "shard_c"], "MAP_TTL": 1e6}

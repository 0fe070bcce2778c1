"""System checks of the settings: each id with its whole message and hint, and silence where all is well."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from django.apps import apps
from django.core.checks import Error, Warning
from django.test import override_settings

from sharding import checks, conf
from sharding.router import ShardRouter

pytestmark = pytest.mark.filterwarnings("ignore:Overriding setting DATABASES:UserWarning")

REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "checks.md"
POSTGRESQL = {"ENGINE": "sharding.backends.postgresql"}
SQLITE = {"ENGINE": "sharding.backends.sqlite3"}
SOUND: dict[str, Any] = {
    "SHARDING": {},
    "DATABASES": {
        "default": POSTGRESQL,
        "shard_a": POSTGRESQL,
        "shard_a_replica_1": {"ENGINE": "django.db.backends.postgresql", "TEST": {"MIRROR": "shard_a"}},
        "blog_db": {"ENGINE": "django.db.backends.mysql"},
    },
    "DATABASE_ROUTERS": ["sharding.router.ShardRouter"],
}
NOT_LISTED = "Shards are declared, but DATABASE_ROUTERS does not list 'sharding.router.ShardRouter'."
SCOPE_HINT = "Name a function that takes the request and returns the shard key of its user, or None."

not_a_function = 7


class Other:
    """Any router but ours."""


class Mine(ShardRouter):
    """A project's own router, made from ours."""


def databases(**changed):
    return {"DATABASES": {**SOUND["DATABASES"], **changed}}


def found(**changed):
    with override_settings(**{**SOUND, **changed}):
        return [message for check in checks.SETTINGS_CHECKS for message in check(None)]


def test_a_sound_cluster_is_silent():
    assert found() == []


def test_a_project_without_shards_needs_nothing_of_it():
    assert found(DATABASES={"default": {"ENGINE": "django.db.backends.mysql"}}, DATABASE_ROUTERS=[]) == []


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("SHARDS", "shard_a"),
        ("BUCKETS", 5000),
        ("HASH", "md5"),
        ("PLACEMENT", "ring"),
        ("WEIGHTS", {"shard_a": 0}),
        ("PINS", {5000: "shard_a"}),
        ("MAP_TTL", 0),
        ("MODE", "off"),
        ("SCOPE_FROM_REQUEST", "tenant_of"),
        ("MAX_PARALLEL", 0),
        ("RECOVER_AFTER", 0),
        ("RECOVER_IN_PROCESS", "yes"),
        ("LOCK_TIMEOUT", 0),
        ("FAN_OUT_TIMEOUT", 0),
        ("WITHOUT_TWO_PHASE_COMMIT", "hope"),
        ("GATHER_ROWS", 0),
        ("GATHER_BYTES", 0),
        ("WARN_OFFSET", -1),
        ("MAX_OFFSET", True),
        ("FENCE", "rows"),
        ("MOVE_WAIT", 0),
        ("SHARD", "an unknown key"),
    ],
)
def test_a_wrong_value_is_an_error_with_the_id_of_its_setting(setting, value):
    with override_settings(**{**SOUND, "SHARDING": {setting: value}}):
        [problem] = conf.problems()
    identity = checks.IDS["SHARDING" if setting == "SHARD" else setting]
    assert found(SHARDING={setting: value}) == [Error(problem.message, hint=problem.hint, id=identity)]


def test_a_whole_message():
    assert found(SHARDING={"BUCKETS": 5000}) == [
        Error(
            "SHARDING['BUCKETS'] must be an integer from 1 to 4096, not 5000.",
            hint="Leave it out for 4096. It can never change once the cluster is initialised.",
            id="sharding.E003",
        )
    ]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"SHARDING": {"SHARDS": ["shard_a", "shard_b"]}},
            Error(
                "SHARDING['SHARDS'] lists 'shard_b', which DATABASES does not have.",
                hint="Add it to DATABASES (with sharding.env: set SHARD_URL_B), or remove it from SHARDS.",
                id="sharding.E012",
            ),
        ),
        (
            {"SHARDING": {"SHARDS": ["default", "shard_a"]}},
            Error(
                "SHARDING['SHARDS'] lists 'default'.",
                hint="Remove it: default is the door to the cluster, and may own buckets without being listed.",
                id="sharding.E013",
            ),
        ),
        (
            {"SHARDING": {"SHARDS": ["shard_a", "eu_replica_1"]}, **databases(eu_replica_1=POSTGRESQL)},
            Error(
                "SHARDING['SHARDS'] lists 'eu_replica_1', which is a replica.",
                hint="List its primary: a replica owns no buckets.",
                id="sharding.E014",
            ),
        ),
        (
            {"SHARDING": {"SHARDS": ["eu"]}, **databases(eu={**POSTGRESQL, "TEST": {"MIRROR": "shard_a"}})},
            Error(
                "SHARDING['SHARDS'] lists 'eu', which is a replica.",
                hint="List its primary: a replica owns no buckets.",
                id="sharding.E014",
            ),
        ),
        (
            databases(default={"ENGINE": "django.db.backends.postgresql"}),
            Error(
                "Shards are declared, but the ENGINE of DATABASES['default'] is 'django.db.backends.postgresql'.",
                hint="Set it to 'sharding.backends.postgresql' or 'sharding.backends.sqlite3': default is the door to "
                "the cluster.",
                id="sharding.E015",
            ),
        ),
        (
            databases(shard_b=SQLITE),
            Error(
                "The shard 'shard_b' runs on SQLite, and default on PostgreSQL.",
                hint="Put default and all shards on the same database system: their answers are merged exactly.",
                id="sharding.E016",
            ),
        ),
        (
            databases(shard_b={"ENGINE": "django.db.backends.postgresql"}),
            Error(
                "The ENGINE of the shard 'shard_b' is 'django.db.backends.postgresql'.",
                hint="Set it to 'sharding.backends.postgresql', that of default.",
                id="sharding.E017",
            ),
        ),
        (
            {"DATABASE_ROUTERS": []},
            Error(
                NOT_LISTED,
                hint="Add it. Without it, migrate creates the tables of global models on every shard.",
                id="sharding.E018",
            ),
        ),
        (
            {"DATABASE_ROUTERS": [Other(), "tests.test_checks_settings.Other"]},
            Error(
                NOT_LISTED,
                hint="Add it. Without it, migrate creates the tables of global models on every shard.",
                id="sharding.E018",
            ),
        ),
        (
            {"DATABASE_ROUTERS": [Other(), "sharding.router.ShardRouter"]},
            Error(
                "Shards are declared, but DATABASE_ROUTERS lists another router before 'sharding.router.ShardRouter'.",
                hint="Put it first. A router before it could send queries of sharded models to another database than "
                "default.",
                id="sharding.E018",
            ),
        ),
        (
            {"SHARDING": {"MODE": "observe"}},
            Error(
                "SHARDING['MODE'] is 'observe', which is not available yet.",
                hint="Set it to 'enforce', or leave it out.",
                id="sharding.E019",
            ),
        ),
        (
            {"SHARDING": {"SCOPE_FROM_REQUEST": "nowhere.tenant_of"}},
            Error(
                "SHARDING['SCOPE_FROM_REQUEST'] is 'nowhere.tenant_of', which cannot be imported: No module named "
                "'nowhere'.",
                hint=SCOPE_HINT,
                id="sharding.E010",
            ),
        ),
        (
            {"SHARDING": {"SCOPE_FROM_REQUEST": "tests.test_checks_settings.tenant_of"}},
            Error(
                "SHARDING['SCOPE_FROM_REQUEST'] is 'tests.test_checks_settings.tenant_of', which cannot be imported: "
                'Module "tests.test_checks_settings" does not define a "tenant_of" attribute/class.',
                hint=SCOPE_HINT,
                id="sharding.E010",
            ),
        ),
        (
            {"SHARDING": {"SCOPE_FROM_REQUEST": "tests.test_checks_settings.not_a_function"}},
            Error(
                "SHARDING['SCOPE_FROM_REQUEST'] is 'tests.test_checks_settings.not_a_function', which cannot be "
                "called.",
                hint=SCOPE_HINT,
                id="sharding.E010",
            ),
        ),
    ],
)
def test_settings_that_do_not_fit_together(changed, message):
    assert found(**changed) == [message]


def test_shards_without_the_aggregator_are_a_warning(monkeypatch):
    # Not by INSTALLED_APPS: that would run ready() of every app once more, in the middle of the tests.
    monkeypatch.delitem(apps.app_configs, "aggregator")
    assert found() == [
        Warning(
            "Shards are declared, but INSTALLED_APPS does not list 'aggregator'.",
            hint="Add it. Without it, every query that needs several shards raises CrossShardQuery.",
            id="sharding.W001",
        )
    ]
    assert found(DATABASES={"default": POSTGRESQL}) == []


def test_a_subclass_of_the_router_counts():
    assert found(DATABASE_ROUTERS=[Mine()]) == []
    assert found(DATABASE_ROUTERS=["tests.test_checks_settings.Mine", Other()]) == []


def test_a_function_that_can_be_called_is_accepted():
    assert found(SHARDING={"SCOPE_FROM_REQUEST": "tests.test_checks_settings.found"}) == []


def test_every_id_is_in_the_reference_once_and_in_order():
    source = Path(checks.__file__).read_text()
    used = set(re.findall(r'id="(sharding\.[EW]\d{3})"', source)) | set(checks.IDS.values())
    listed = re.findall(r"^\| `(sharding\.[EW]\d{3})` \|", REFERENCE.read_text(), re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert sorted(used - set(listed)) == []
    assert used == {f"sharding.E{number:03}" for number in [*range(1, 20), 38, *range(40, 50)]} | {"sharding.W001"}

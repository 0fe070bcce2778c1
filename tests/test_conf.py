"""The reader of SHARDING: defaults, types, every refusal, and the reset of its cache."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings

from sharding import conf
from sharding.conf import Problem, Settings

ALIASES = ["default", "shard_b", "shard_a", "shard_a_replica_1", "blog_db"]
KEYS = "SHARDS, BUCKETS, HASH, PLACEMENT, WEIGHTS, PINS, MAP_TTL, MODE, SCOPE_FROM_REQUEST, MAX_PARALLEL, "
KEYS += "FAN_OUT_TIMEOUT, WITHOUT_TWO_PHASE_COMMIT, RECOVER_AFTER, RECOVER_IN_PROCESS, LOCK_TIMEOUT, "
KEYS += "MOVE_WAIT, GATHER_ROWS, GATHER_BYTES, WARN_OFFSET, MAX_OFFSET, FENCE"
OWNERS = "The shards are shard_a, shard_b; default may own buckets too."
REFERENCE = Path(__file__).resolve().parent.parent / "docs" / "reference" / "settings.md"


def test_defaults():
    assert conf.read({}, ALIASES) == (
        Settings(
            shards=("shard_a", "shard_b"),
            buckets=4096,
            hash="mmh3",
            placement="even",
            weights={},
            pins={},
            map_ttl=30.0,
            mode="enforce",
            scope_from_request=None,
            max_parallel=32,
            without_two_phase_commit="raise",
            recover_after=10.0,
            recover_in_process=True,
            lock_timeout=10.0,
            fence={"default": "row"},
        ),
        [],
    )


def test_every_setting_is_read():
    given = {
        "SHARDS": ["shard_b", "eu"],
        "BUCKETS": 3072,
        "HASH": "identity",
        "PLACEMENT": "consistent",
        "WEIGHTS": {"eu": 2, "default": 0.5},
        "PINS": {0: "eu", 3071: "default"},
        "MAP_TTL": 5,
        "MODE": "observe",
        "SCOPE_FROM_REQUEST": "shop.tenants.tenant_of",
        "MAX_PARALLEL": 1,
        "FAN_OUT_TIMEOUT": 3,
        "WITHOUT_TWO_PHASE_COMMIT": "sequential",
        "RECOVER_AFTER": 1,
        "RECOVER_IN_PROCESS": False,
        "LOCK_TIMEOUT": 2,
        "MOVE_WAIT": 3.0,
        "GATHER_ROWS": 10,
        "GATHER_BYTES": 1000,
        "WARN_OFFSET": None,
        "MAX_OFFSET": 0,
        "FENCE": {"default": "row", "shop.event": "statement"},
    }
    found, problems = conf.read(given, ALIASES)
    assert problems == []
    assert dataclasses.asdict(found) == {
        name.lower(): value for name, value in {**given, "SHARDS": ("shard_b", "eu")}.items()
    }
    assert [type(value) for value in (found.map_ttl, found.recover_after, found.lock_timeout)] == [float] * 3


def test_values_are_kept_apart_from_the_settings_module():
    weights = {"shard_a": 2}
    found, _ = conf.read({"WEIGHTS": weights}, ALIASES)
    weights["shard_a"] = 3
    assert found.weights == {"shard_a": 2}


def test_every_attribute_has_a_rule_and_every_rule_an_attribute():
    assert [field.name for field in dataclasses.fields(Settings)] == [name.lower() for name in conf.RULES]


WHOLE: list[tuple[Any, Problem]] = [
    (value, Problem("SHARDING", f"SHARDING must be a dict, not {value!r}.", "Write SHARDING = {}."))
    for value in (None, ["shard_a"], "shard_a")
]
KEYS_PROBLEMS: list[tuple[Any, Problem]] = [
    ({key: 1}, Problem("SHARDING", f"SHARDING has the unknown key {key!r}.", f"The keys are {KEYS}."))
    for key in ("SHARD", "buckets", 7)
]
VALUES: dict[str, tuple[str, str, list[Any]]] = {
    "SHARDS": (
        "a list of different DATABASES aliases",
        "Name each shard once, or leave SHARDS out to take every alias that starts with 'shard_'.",
        ["shard_a", None, {"shard_a"}, ["shard_a", "shard_a"], ["shard_a", ""], ["shard_a", 1]],
    ),
    "BUCKETS": (
        "an integer from 1 to 4096",
        "Leave it out for 4096. It can never change once the cluster is initialised.",
        [0, -1, 4097, 12.0, "12", None, True],
    ),
    "HASH": (
        "one of 'mmh3', 'identity'",
        "Leave it out for 'mmh3'; 'identity' is for rows that already live at key % n.",
        ["md5", "MMH3", None, [], hash],
    ),
    "PLACEMENT": (
        "one of 'even', 'modulo', 'consistent'",
        "Leave it out for 'even', which moves the fewest buckets.",
        ["ring", None, ["even"]],
    ),
    "WEIGHTS": (
        "a dict of positive numbers by alias",
        "A shard that is left out has weight 1. To empty a shard, remove it from SHARDS.",
        [[], None, {"shard_a": 0}, {"shard_a": -1}, {"shard_a": "2"}, {"shard_a": True}, {1: 1.0}]
        + [{"shard_a": value} for value in (float("inf"), float("nan"), 10**400, None)],
    ),
    "PINS": (
        "a dict of aliases by bucket number",
        "Write {bucket: alias}, for example {17: 'shard_a'}.",
        [[], None, {"17": "shard_a"}, {"shard_a": 17}, {True: "shard_a"}, {17: None}],
    ),
    "MAP_TTL": (
        "a positive number of seconds",
        "Leave it out for 30. It bounds how long a process may read a moved bucket's old copy.",
        [0, -1.5, "30", None, True, float("inf"), float("nan")],
    ),
    "MODE": ("one of 'enforce', 'observe'", "Leave it out for 'enforce'.", ["off", None, 1]),
    "SCOPE_FROM_REQUEST": (
        "the dotted path of a function, or None",
        "Write a string such as 'shop.tenants.tenant_of', naming a function that takes the request.",
        ["tenant_of", "shop.", ".tenant_of", "shop tenants.x", "", 1, len],
    ),
    "MAX_PARALLEL": (
        "a positive integer",
        "Leave it out for 32. With 1, shards are asked one after the other.",
        [0, -1, 2.0, "8", None, True],
    ),
    "FAN_OUT_TIMEOUT": (
        "a number of seconds from 0.001 to 2147483, or None",
        "Leave it out for None, with which a fan-out takes as long as its slowest shard.",
        [0, 0.0004, -1, "10", True, float("inf"), float("nan"), 2147484],
    ),
    "WITHOUT_TWO_PHASE_COMMIT": (
        "one of 'raise', 'sequential'",
        "Leave it out for 'raise'; 'sequential' commits one database after the other.",
        ["two_phase", "", None, True],
    ),
    "RECOVER_AFTER": (
        "a positive number of seconds",
        "Leave it out for 10. A commit that takes longer than this may be rolled back by another process.",
        [0, -1, "10", None, True, float("inf"), float("nan")],
    ),
    "RECOVER_IN_PROCESS": (
        "True or False",
        "Leave it out for True. With False, `manage.py shards recover --watch` must run somewhere.",
        [0, 1, "yes", None],
    ),
    "LOCK_TIMEOUT": (
        "a number of seconds from 0.001 to 2147483, or None",
        "Leave it out for 10. With None, blocks over several databases wait as long as each server lets them.",
        [0, 0.0004, -1, "10", True, float("inf"), float("nan"), 2147484],
    ),
    "MOVE_WAIT": (
        "a positive number of seconds",
        "Leave it out for 10. So long is a statement sent again whose bucket is just about to be another shard's.",
        [0, -1, "10", None],
    ),
    "FENCE": (
        "one of 'row', 'statement', a dict of them by the label of a model, or None",
        "Leave it out for 'row'; write {'shop.Event': 'statement'} for a table whose rows are written many at a time.",
        ["rows", 1, {"shop.Event": None}, {"shop.Event": {}}, {1: "row"}],
    ),
    "GATHER_ROWS": (
        "a positive integer",
        "Leave it out for 100000 rows, which one query may bring from all shards to one place.",
        [0, -1, 1.5, "10", True, None],
    ),
    "GATHER_BYTES": (
        "a positive integer",
        "Leave it out for 67108864 bytes, which one query may bring from all shards to one place.",
        [0, -1, 1.5, "10", True, None],
    ),
    "WARN_OFFSET": (
        "a number of rows, or None",
        "Leave it out for 10000. With None, nothing is said of the rows that a query of several shards skips.",
        [-1, 1.5, "10", True],
    ),
    "MAX_OFFSET": (
        "a number of rows, or None",
        "Leave it out for 100000. With None, a query of several shards may skip any number of rows.",
        [-1, 1.5, "10", True],
    ),
}
VALUE_PROBLEMS: list[tuple[Any, Problem]] = [
    ({name: value}, Problem(name, f"SHARDING[{name!r}] must be {expected}, not {value!r}.", hint))
    for name, (expected, hint, values) in VALUES.items()
    for value in values
]
DISAGREEMENTS: list[tuple[Any, Problem]] = [
    ({"WEIGHTS": {"eu": 1}}, Problem("WEIGHTS", "SHARDING['WEIGHTS'] names 'eu', which is not a shard.", OWNERS)),
    (
        {"PLACEMENT": "modulo", "WEIGHTS": {"shard_a": 2}},
        Problem(
            "WEIGHTS",
            "SHARDING['WEIGHTS'] differ, and the placement 'modulo' cannot weight shards.",
            "Give all shards the same weight, or set PLACEMENT to 'even' or 'consistent'.",
        ),
    ),
    (
        {"PINS": {12: "shard_a"}, "BUCKETS": 12},
        Problem("PINS", "SHARDING['PINS'] names the bucket 12, which does not exist.", "The buckets are 0 to 11."),
    ),
    (
        {"PINS": {-1: "shard_a"}},
        Problem("PINS", "SHARDING['PINS'] names the bucket -1, which does not exist.", "The buckets are 0 to 4095."),
    ),
    (
        {"PINS": {7: "shard_a_replica_1"}},
        Problem("PINS", "SHARDING['PINS'] pins the bucket 7 to 'shard_a_replica_1', which is not a shard.", OWNERS),
    ),
]


@pytest.mark.parametrize(("given", "problem"), WHOLE + KEYS_PROBLEMS + VALUE_PROBLEMS + DISAGREEMENTS)
def test_refused_value(given, problem):
    assert conf.read(given, ALIASES)[1] == [problem]


@pytest.mark.parametrize(
    "given",
    [
        {"SHARDS": ()},
        {"BUCKETS": 1},
        {"BUCKETS": 4096},
        {"PLACEMENT": "modulo", "WEIGHTS": {"shard_a": 2, "shard_b": 2.0}},
        {"PLACEMENT": "modulo", "WEIGHTS": {"shard_a": 1}},
        {"MAP_TTL": 0.001},
        {"SCOPE_FROM_REQUEST": None},
        {"FAN_OUT_TIMEOUT": None},
        {"FAN_OUT_TIMEOUT": 0.5},
        {"LOCK_TIMEOUT": None},
        {"LOCK_TIMEOUT": 0.001},
        {"LOCK_TIMEOUT": 2147483},
    ],
)
def test_allowed_value(given):
    assert conf.read(given, ALIASES)[1] == []


def test_all_problems_are_told_at_once_with_unknown_keys_first():
    _, problems = conf.read({"MODE": "off", "HASH": "md5", "SHARD": 1}, ALIASES)
    assert [problem.setting for problem in problems] == ["SHARDING", "HASH", "MODE"]


def test_a_problem_without_shards_says_so():
    assert conf.read({"WEIGHTS": {"eu": 1}}, ["default"])[1][0].hint == (
        "The shards are none; default may own buckets too."
    )


@override_settings(SHARDING={"HASH": "md5", "BUCKETS": 0})
def test_current_raises_the_first_problem():
    assert [problem.setting for problem in conf.problems()] == ["BUCKETS", "HASH"]
    with pytest.raises(ImproperlyConfigured) as caught:
        conf.current()
    assert str(caught.value) == (
        "SHARDING['BUCKETS'] must be an integer from 1 to 4096, not 0. Leave it out for 4096. It can never change once "
        "the cluster is initialised."
    )


def test_current_is_cached_until_a_setting_changes():
    with override_settings(SHARDING={"BUCKETS": 12}):
        assert conf.current().buckets == 12
        assert conf.current() is conf.current()
        with override_settings(SHARDING={"BUCKETS": 24}):
            assert conf.current().buckets == 24
        assert conf.current().buckets == 12


@pytest.mark.filterwarnings("ignore:Overriding setting DATABASES:UserWarning")
def test_shards_follow_databases():
    with override_settings(SHARDING={}, DATABASES={"default": {}, "shard_x": {}}):
        assert conf.current().shards == ("shard_x",)
        with override_settings(DATABASES={"default": {}}):
            assert conf.current().shards == ()


def test_without_the_setting_the_defaults_hold(settings):
    del settings.SHARDING
    assert (conf.problems(), conf.current().buckets) == ([], 4096)


def test_every_setting_has_its_section_in_the_reference_with_its_default_in_bold():
    text = REFERENCE.read_text()
    sections = dict(re.findall(r"^## `(\w+)`\n(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL))
    assert list(sections) == list(conf.RULES)
    assert [name for name, section in sections.items() if "Default: **" not in section] == []

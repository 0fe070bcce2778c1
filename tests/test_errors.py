"""
The error classes: each can be made, caught by the one root, pickled, and asked for its facts.
"""

from __future__ import annotations

import inspect
import pickle
from typing import Any

import pytest
from django.db import OperationalError

from sharding import errors
from sharding.errors import ShardingError

CLASSES = {
    name: found
    for name, found in vars(errors).items()
    if isinstance(found, type) and issubclass(found, ShardingError) and found.__module__ == errors.__name__
}

#: What the facts of an error look like.
FACTS: dict[str, Any] = {
    "model": "shop.Order",
    "field": "tenant_id",
    "old": 3,
    "new": 4,
    "key": 1.5,
    "scope": 3,
    "found": 4,
    "value": "x",
    "expected": 951,
    "aliases": ["shard_a", "shard_b"],
    "construct": "union()",
    "lookup": "shop_member_email_lookup",
    "tables": ["shop_order", "shop_region"],
    "table": "shop_order",
    "columns": ("weight",),
    "alias": "shard_a",
    "committed": ["shard_a"],
    "failed": {"shard_b": OperationalError("gone")},
    "rolled_back": ["shard_b"],
    "in_doubt": [],
    "compensated": True,
    "function": "shop.orders:cancel",
    "transaction": "00000000deadbeef.1",
    "failures": {"shard_b": OperationalError("gone")},
    "cursor": "abc",
    "limit": 100_000,
    "epoch": 17,
    "forward": "shard_c",
    "timeout": 2.0,
    "offset": 499_950,
    "bucket": 951,
    "buckets": [951],
    "phase": "copying",
    "owner": "shard_a",
    "source_state": "capturing",
    "target_state": "owned",
    "generation": 7,
    "latest": 9,
    "state": "owned",
    "differences": ("shop_line.amount is integer on 'shard_a' and bigint on 'shard_b'.",),
    "constraint": "one_email_a_tenant",
    "first": "[1]",
    "last": "[9]",
    "report": None,
    "findings": ("SHARDING['FENCE'] is None.",),
}


def facts_of(found: type[ShardingError]) -> dict[str, Any]:
    return {name: FACTS[name] for name in inspect.get_annotations(found)}


@pytest.mark.parametrize("found", CLASSES.values(), ids=CLASSES)
def test_message_and_facts(found: type[ShardingError]) -> None:
    facts = facts_of(found)
    error = found("What happened. What to do.", **facts)
    assert str(error) == "What happened. What to do."
    assert error.args == ("What happened. What to do.",)
    assert vars(error) == facts


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("found", CLASSES.values(), ids=CLASSES)
def test_pickling(found: type[ShardingError], protocol: int) -> None:
    """Errors travel between the processes of a test run, and through task queues."""
    error = found("What happened.", **facts_of(found))
    error.add_note("on Tuesday")
    again = pickle.loads(pickle.dumps(error, protocol))
    assert type(again) is found
    assert again.args == error.args
    assert again.__notes__ == ["on Tuesday"]
    assert {name: repr(value) for name, value in vars(again).items()} == {
        name: repr(value) for name, value in vars(error).items()
    }


def test_a_cause_does_not_hinder() -> None:
    try:
        try:
            raise OperationalError("gone")
        except OperationalError as cause:
            raise errors.ShardsUnavailable("One shard did not answer.", failures={"shard_a": cause}) from cause
    except errors.ShardsUnavailable as error:
        again = pickle.loads(pickle.dumps(error))
    assert repr(again.failures) == "{'shard_a': OperationalError('gone')}"


@pytest.mark.parametrize("found", CLASSES.values(), ids=CLASSES)
def test_every_class_says_what_it_means(found: type[ShardingError]) -> None:
    assert (found.__doc__ or "").strip().endswith(".")
    assert found.__doc__ not in {base.__doc__ for base in found.__mro__[1:]}


def test_the_tree_is_drawn_whole() -> None:
    drawn = {line.split()[line.count("│") + 1] for line in tree()[1:]}
    assert {tree()[0].split()[0], *drawn} == set(CLASSES)


@pytest.mark.parametrize("found", CLASSES.values(), ids=CLASSES)
def test_the_tree_tells_the_facts(found: type[ShardingError]) -> None:
    (line,) = [line for line in tree() if found.__name__ in line.split()]
    told = [word[1:] for word in line.split() if word.startswith(".")]
    assert told == list(facts_of(found))


def tree() -> list[str]:
    """Return the lines of the tree at the top of the module."""
    lines = (errors.__doc__ or "").splitlines()
    return [line for line in lines if line.startswith(("ShardingError", "├", "│", "└"))]


@pytest.mark.parametrize(
    ("found", "builtin"),
    [(errors.UnhashableKey, TypeError), (errors.InvalidCursor, ValueError), (ShardingError, Exception)],
)
def test_builtin_classes(found: type[Exception], builtin: type[Exception]) -> None:
    assert issubclass(found, builtin)


def test_no_error_is_a_database_error() -> None:
    """Django's own handlers of lost connections must not take one of these for one of theirs."""
    assert not [name for name, found in CLASSES.items() if issubclass(found, OperationalError)]

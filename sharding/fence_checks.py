"""
System checks of the fences: W076 to W078. Those that ask databases run for the databases that are named.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any, Final

from django.conf import settings
from django.core.checks import CheckMessage, Warning
from django.db import DEFAULT_DB_ALIAS, DatabaseError, connections

from sharding import conf, registry, stored_cluster
from sharding.fence import condition
from sharding.model_checks.subjects import AppConfigs

RAISE: Final = "Run `manage.py migrate_all`."


def check_is_fenced(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning if shards are declared that are to have no fences (W078)."""
    if conf.problems() or not conf.current().shards or conf.current().fence is not None:
        return []
    if settings.DATABASES[DEFAULT_DB_ALIAS].get("ENGINE") == "sharding.backends.sqlite3":
        return []
    return [
        Warning(
            "Shards are declared, and SHARDING['FENCE'] is None.",
            hint="Leave it out. Without a fence, a shard takes what a process with an old bucket map writes there of "
            "buckets that have moved away, and that is lost.",
            id="sharding.W078",
        )
    ]


def check_labels(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for each label in FENCE that names no sharded model (W077)."""
    if conf.problems():
        return []
    return [
        Warning(
            f"SHARDING['FENCE'] names {label!r}, which is no sharded model.",
            hint="Write its label, such as 'shop.Event', or leave it out.",
            id="sharding.W077",
        )
        for label in sorted(conf.current().fence or ())
        if label != "default" and not registry.is_sharded(label)
    ]


def check_fences(app_configs: AppConfigs, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for each named database whose fence is not as it should be (W076)."""
    if conf.problems():
        return []
    named = [alias for alias in databases or () if alias in {DEFAULT_DB_ALIAS, *conf.current().shards}]
    found: list[CheckMessage] = []
    # A database that does not answer is E039, which check_stored_cluster() reports.
    for alias in named:
        with suppress(DatabaseError):
            found += _of(alias)
    return found


def _of(alias: str) -> list[CheckMessage]:
    if alias not in connections or stored_cluster.identity(alias) is None:
        return []
    wrong = condition.condition(alias)
    found: list[CheckMessage] = []
    if wrong and wrong.lack:
        found.append(Warning(f"The fence of {alias!r} {wrong.lack}.", hint=RAISE, id="sharding.W076"))
    return found

"""
System checks of the settings: ``SHARDING``, and what it needs from DATABASES, DATABASE_ROUTERS and INSTALLED_APPS.

Ids are stable: E001 to E011, E038 and E040 to E049 are one a setting, E012 to E019 and W001 are about several settings
together. The checks of models have their own module. Nothing here opens a database.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from django.apps import AppConfig, apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS
from django.utils.module_loading import import_string

from sharding import conf

ROUTER: Final = "sharding.router.ShardRouter"
VENDORS: Final = {"sharding.backends.postgresql": "PostgreSQL", "sharding.backends.sqlite3": "SQLite"}
IDS: Final = {
    "SHARDING": "sharding.E001",
    "SHARDS": "sharding.E002",
    "BUCKETS": "sharding.E003",
    "HASH": "sharding.E004",
    "PLACEMENT": "sharding.E005",
    "WEIGHTS": "sharding.E006",
    "PINS": "sharding.E007",
    "MAP_TTL": "sharding.E008",
    "MODE": "sharding.E009",
    "SCOPE_FROM_REQUEST": "sharding.E010",
    "MAX_PARALLEL": "sharding.E011",
    "RECOVER_AFTER": "sharding.E040",
    "RECOVER_IN_PROCESS": "sharding.E041",
    "LOCK_TIMEOUT": "sharding.E042",
    "WITHOUT_TWO_PHASE_COMMIT": "sharding.E043",
    "GATHER_ROWS": "sharding.E044",
    "GATHER_BYTES": "sharding.E045",
    "FAN_OUT_TIMEOUT": "sharding.E046",
    "WARN_OFFSET": "sharding.E047",
    "MAX_OFFSET": "sharding.E048",
    "FENCE": "sharding.E049",
    "MOVE_WAIT": "sharding.E038",
}


def check_values(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each setting that is wrong by itself (E001 to E011, E038, E040 to E049)."""
    return [Error(message, hint=hint, id=IDS[setting]) for setting, message, hint in conf.problems()]


def check_shards(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each of SHARDS that is no primary of its own (E012 to E014)."""
    return [error for alias in _sound_shards() for error in _errors_of_alias(alias)]


def check_engines(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each ENGINE that cannot take part in the declared cluster (E015 to E017)."""
    shards = [alias for alias in _sound_shards() if alias in settings.DATABASES]
    if not shards:
        return []
    door = _engine(DEFAULT_DB_ALIAS)
    if door not in VENDORS:
        return [
            Error(
                f"Shards are declared, but the ENGINE of DATABASES['default'] is {door!r}.",
                hint=f"Set it to {_alternatives(VENDORS)}: default is the door to the cluster.",
                id="sharding.E015",
            )
        ]
    return [error for alias in shards for error in _errors_of_engine(alias, _engine(alias), door)]


def check_router(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error if shards are declared and our router is not the first one (E018)."""
    is_ours = [_is_router(each) for each in settings.DATABASE_ROUTERS]
    if not _sound_shards() or is_ours[:1] == [True]:
        return []
    if any(is_ours):
        message = f"Shards are declared, but DATABASE_ROUTERS lists another router before {ROUTER!r}."
        hint = "Put it first. A router before it could send queries of sharded models to another database than default."
    else:
        message = f"Shards are declared, but DATABASE_ROUTERS does not list {ROUTER!r}."
        hint = "Add it. Without it, migrate creates the tables of global models on every shard."
    return [Error(message, hint=hint, id="sharding.E018")]


def check_mode(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error if the mode is one that is not available yet (E019)."""
    if conf.problems() or conf.current().mode != "observe":
        return []
    return [
        Error(
            "SHARDING['MODE'] is 'observe', which is not available yet.",
            hint="Set it to 'enforce', or leave it out.",
            id="sharding.E019",
        )
    ]


def check_scope(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return an error if SCOPE_FROM_REQUEST names nothing that can be called (E010)."""
    path = None if conf.problems() else conf.current().scope_from_request
    if path is None:
        return []
    try:
        function = import_string(path)
    except ImportError as error:
        return [_scope_error(f"SHARDING['SCOPE_FROM_REQUEST'] is {path!r}, which cannot be imported: {error}.")]
    if not callable(function):
        return [_scope_error(f"SHARDING['SCOPE_FROM_REQUEST'] is {path!r}, which cannot be called.")]
    return []


def check_aggregator(app_configs: Sequence[AppConfig] | None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning if shards are declared and nothing can merge their answers (W001)."""
    if not _sound_shards() or apps.is_installed("aggregator"):
        return []
    return [
        Warning(
            "Shards are declared, but INSTALLED_APPS does not list 'aggregator'.",
            hint="Add it. Without it, every query that needs several shards raises CrossShardQuery.",
            id="sharding.W001",
        )
    ]


SETTINGS_CHECKS: Final[tuple[Callable[..., list[CheckMessage]], ...]] = (
    check_values,
    check_shards,
    check_engines,
    check_router,
    check_mode,
    check_scope,
    check_aggregator,
)


def _sound_shards() -> tuple[str, ...]:
    """Return the declared shards, or nothing while SHARDING has problems of its own: those come first."""
    return () if conf.problems() else conf.current().shards


def _errors_of_alias(alias: str) -> Iterator[CheckMessage]:
    if alias == DEFAULT_DB_ALIAS:
        yield Error(
            "SHARDING['SHARDS'] lists 'default'.",
            hint="Remove it: default is the door to the cluster, and may own buckets without being listed.",
            id="sharding.E013",
        )
    elif alias not in settings.DATABASES:
        variable = alias.removeprefix(conf.SHARD_PREFIX).upper()
        yield Error(
            f"SHARDING['SHARDS'] lists {alias!r}, which DATABASES does not have.",
            hint=f"Add it to DATABASES (with sharding.env: set SHARD_URL_{variable}), or remove it from SHARDS.",
            id="sharding.E012",
        )
    elif conf.REPLICA_INFIX in alias or _mirrored(alias):
        yield Error(
            f"SHARDING['SHARDS'] lists {alias!r}, which is a replica.",
            hint="List its primary: a replica owns no buckets.",
            id="sharding.E014",
        )


def _errors_of_engine(alias: str, engine: str, door: str) -> Iterator[CheckMessage]:
    if engine not in VENDORS:
        yield Error(
            f"The ENGINE of the shard {alias!r} is {engine!r}.",
            hint=f"Set it to {door!r}, that of default.",
            id="sharding.E017",
        )
    elif engine != door:
        yield Error(
            f"The shard {alias!r} runs on {VENDORS[engine]}, and default on {VENDORS[door]}.",
            hint="Put default and all shards on the same database system: their answers are merged exactly.",
            id="sharding.E016",
        )


def _engine(alias: str) -> str:
    return str(settings.DATABASES.get(alias, {}).get("ENGINE", ""))


def _mirrored(alias: str) -> bool:
    test: Mapping[str, Any] = settings.DATABASES[alias].get("TEST", {})
    return test.get("MIRROR") is not None


def _is_router(entry: Any) -> bool:
    # Django takes dotted paths and instances, and the router may be a subclass of ours.
    if entry == ROUTER:
        return True
    kind = import_string(entry) if isinstance(entry, str) else type(entry)
    return any(f"{parent.__module__}.{parent.__qualname__}" == ROUTER for parent in kind.__mro__)


def _scope_error(message: str) -> CheckMessage:
    hint = "Name a function that takes the request and returns the shard key of its user, or None."
    return Error(message, hint=hint, id=IDS["SCOPE_FROM_REQUEST"])


def _alternatives(values: Mapping[str, Any]) -> str:
    return " or ".join(repr(value) for value in values)

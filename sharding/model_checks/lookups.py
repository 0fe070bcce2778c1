"""
Checks of second keys: what is declared (E060, E061), and whether it is filled (W062).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS, OperationalError, connections

from sharding import conf, registry
from sharding.lookups import states, tables
from sharding.model_checks.subjects import AppConfigs, keyed_models


def check_lookups(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each lookup that cannot be, and for each that repeats another one."""
    return [error for model in keyed_models(app_configs) for error in _of_model(model)]


def check_built(app_configs: AppConfigs, databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Return a warning for each lookup that does not answer yet, if `default` is among the named databases."""
    if DEFAULT_DB_ALIAS not in (databases or ()) or conf.problems():
        return []
    try:
        return _not_built(app_configs) if states.has_table(connections[DEFAULT_DB_ALIAS]) else []
    except OperationalError:
        # E039, which check_stored_cluster() reports.
        return []


def _not_built(app_configs: AppConfigs) -> list[CheckMessage]:
    return [
        Warning(
            f"The lookup {lookup.name} of {entry.label} is not built, so that nothing is found by it.",
            hint=f"Run `manage.py shards lookup build {lookup.name}` when every process runs this code.",
            obj=entry.model,
            id="sharding.W062",
        )
        for entry in (registry.get(model) for model in keyed_models(app_configs))
        for lookup in entry.lookups
        if not states.is_built(lookup.name)
    ]


def _of_model(model: Any) -> Iterator[CheckMessage]:
    declared = getattr(model, tables.DECLARED, ())
    if not isinstance(declared, (list, tuple)):
        yield Error(
            f"{model._meta.label}.lookups is {declared!r}, which is no list of LookupIndex.",
            hint='Write lookups = [LookupIndex(fields=["email"], unique=True)].',
            obj=model,
            id="sharding.E060",
        )
        return
    for index in declared:
        reason = tables.problem(model, index)
        if reason is not None:
            yield Error(
                f"{index!r} of {model._meta.label} {reason}.",
                hint="Name columns of the model that are neither its key nor relations.",
                obj=model,
                id="sharding.E060",
            )
    names = Counter(tables.class_name(model, index) for index in tables.sound(model))
    for number in names.values():
        if number > 1:
            yield Error(
                f"{model._meta.label} declares {number} lookups of the same fields.",
                hint="Remove all but one of them.",
                obj=model,
                id="sharding.E061",
            )

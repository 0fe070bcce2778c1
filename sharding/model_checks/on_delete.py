"""
What a database does by itself when a row goes to which others refer (Django 6.1): on_delete=DB_CASCADE and the like.

It is done where the constraint is, so that rows of other databases stay as they are (063).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error
from django.db.models import ForeignKey, Model

from sharding import registry
from sharding.lookups import tables
from sharding.model_checks.subjects import AppConfigs, keyed_models, named


def check_on_delete(app_configs: AppConfigs, **kwargs: Any) -> list[CheckMessage]:
    """Return an error for each foreign key by which a database does a part of what is to be done."""
    return [error for model in keyed_models(app_configs) for error in _of_model(model)]


def rule_of(field: Any) -> str:
    """Return "CASCADE" for on_delete=DB_CASCADE, and so on; nothing for what Django does."""
    on_delete = field.remote_field.on_delete
    return str(on_delete).removeprefix("DB_") if hasattr(on_delete, "on_delete_sql") else ""


def without_constraint(field: Any) -> str:
    """Return the remedy for a constraint that cannot hold, since rows are in several databases."""
    rule = rule_of(field)
    if rule:
        return f"Set db_constraint=False and on_delete={rule}: what that says is done by Django, on every database."
    return "Set db_constraint=False; what on_delete says is done by Django all the same."


def _of_model(model: Any) -> Iterator[CheckMessage]:
    keys: list[Any] = [field for field in model._meta.local_fields if isinstance(field, ForeignKey)]
    for field in keys:
        if field.db_constraint and (reason := _reason(model, field)):
            rule = rule_of(field)
            yield Error(
                f"{named(field)} has on_delete=DB_{rule}, {reason}.",
                hint=f"Set on_delete={rule}, which Django does.",
                obj=field,
                id="sharding.E063",
            )


def _reason(model: type[Model], field: Any) -> str:
    rule = rule_of(field)
    if rule == "CASCADE" and any(True for _ in tables.sound(model)):
        return f"so that a shard deletes rows of {model._meta.label} whose lookup entries stay in the control database"
    if rule == "SET_DEFAULT" and field.attname in registry.get(model).columns:
        return "so that a shard lets rows of every bucket refer to a row of one"
    return ""

"""
Which relations a page of the admin can join in SQL, and which it has to attach.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from django.core.exceptions import FieldDoesNotExist
from django.db.models import ForeignKey, Model
from django.db.models.constants import LOOKUP_SEP

from sharding import reference_models, registry


def is_joined(field: Any) -> bool:
    """Return whether the rows that a foreign key refers to are in the same database as its own."""
    holder, target = registry.entry(field.model), registry.entry(field.remote_field.model)
    if reference_models.is_reference(field.remote_field.model):
        return True
    if holder is None:
        return target is None
    return target is not None and field.attname in holder.columns


def foreign_key(model: type[Model], name: Any) -> Any:
    """Return the foreign key of a name, or None where that is something else; "customer_id" needs no related row."""
    try:
        field = model._meta.get_field(name)
    except FieldDoesNotExist:
        return None
    return field if isinstance(field, ForeignKey) and field.name == name else None


def divided(model: type[Model], paths: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return the paths to join by select_related(), and those to attach() to the rows of a page."""
    joined, attached = [], []
    for path in dict.fromkeys(paths):
        beginning = _joined_part(model, path.split(LOOKUP_SEP))
        if beginning:
            joined.append(beginning)
        if beginning != path:
            attached.append(path)
    return joined, attached


def _joined_part(model: type[Model], names: list[str]) -> str:
    for place, name in enumerate(names):
        field = foreign_key(model, name)
        if field is None:
            # A one-to-one relation from the other side, or an error of which Django tells.
            return LOOKUP_SEP.join(names)
        if not is_joined(field):
            return LOOKUP_SEP.join(names[:place])
        model = field.remote_field.model
    return LOOKUP_SEP.join(names)


def foreign_keys_shown(model: type[Model], columns: Iterable[Any]) -> list[str]:
    """Return the paths of the foreign keys whose objects the columns of a list show: "customer", "customer__name"."""
    found = []
    for column in columns:
        path, target = [], model
        for name in column.split(LOOKUP_SEP) if isinstance(column, str) else ():
            field = foreign_key(target, name)
            if field is None:
                break
            path.append(name)
            target = field.remote_field.model
        if path:
            found.append(LOOKUP_SEP.join(path))
    return found


def crossing(model: type[Model], path: str) -> Any:
    """Return the foreign key behind which a path of a lookup goes on in another database, or None."""
    names = path.split(LOOKUP_SEP)
    for place, name in enumerate(names):
        field = foreign_key(model, name)
        if field is None:
            return None
        rest = names[place + 1 :]
        target = field.target_field.name
        # What the column itself holds needs no join.
        if not is_joined(field):
            return field if rest and rest[0] not in {target, field.target_field.attname, "pk", "isnull"} else None
        model = field.remote_field.model
    return None

"""
The tables of lookups: a global model for each, in the app of the sharded model, so that migrations make it.

An entry has the primary key of its row, the looked-up values, and the bucket. Types and collations are those of the
row's columns, so that the database decides what equals what.
"""

from __future__ import annotations

from typing import Any

from django.db import models
from django.db.backends.utils import strip_quotes, truncate_name

from sharding import routing
from sharding.entries import LOOKUP_TABLES
from sharding.errors import LookupRefused
from sharding.lookups.declaration import Lookup, LookupIndex

#: PostgreSQL's names end here.
LONGEST_NAME = 63

#: Attribute of the model class that holds what is declared; what is made of it is in entries.LOOKUP_TABLES.
DECLARED = "lookups"

#: What a column of an entry takes over from the row's: its type. Everything else is the row's own business.
LEFT_OUT = {
    "auto_now",
    "auto_now_add",
    "blank",
    "choices",
    "db_comment",
    "db_default",
    "db_index",
    "db_tablespace",
    "default",
    "editable",
    "error_messages",
    "help_text",
    "null",
    "primary_key",
    "unique",
    "unique_for_date",
    "unique_for_month",
    "unique_for_year",
    "validators",
    "verbose_name",
}

#: What a column holds that refers to one whose values the database counts.
COUNTED: dict[str, type[models.IntegerField[Any, Any]]] = {
    "AutoField": models.IntegerField,
    "BigAutoField": models.BigIntegerField,
    "SmallAutoField": models.SmallIntegerField,
}


class LookupEntry(models.Model):
    """Base of the generated models. The toolkit writes entries together with their rows; nobody else does."""

    class Meta:
        abstract = True

    def _save_table(self, raw: bool = False, *args: Any, **kwargs: Any) -> bool:
        # Fixtures call Model.save_base() itself, so that overriding that would not see them.
        if not raw:
            raise _refused(self, "saved")
        if routing.native_alias() is None:
            # The rows of the fixture make their entries themselves.
            return False
        return bool(super()._save_table(raw, *args, **kwargs))  # type: ignore[misc]

    def delete(self, *args: Any, **kwargs: Any) -> tuple[int, dict[str, int]]:
        raise _refused(self, "deleted")

    delete.alters_data = True  # type: ignore[attr-defined]


def prepare(model: type[models.Model]) -> None:
    """Make the tables of the lookups that a sharded model declares. What is wrong with one is left to the checks."""
    # Of two with the same fields there can be one table.
    by_name = {class_name(model, each): each for each in reversed(sound(model))}
    setattr(model, LOOKUP_TABLES, tuple(_made(model, each) for each in reversed(by_name.values())))


def sound(model: type[models.Model]) -> list[LookupIndex]:
    """Return what a model declares, without what cannot be."""
    declared = getattr(model, DECLARED, ())
    return [each for each in declared if problem(model, each) is None] if isinstance(declared, (list, tuple)) else []


def problem(model: type[models.Model], index: Any) -> str | None:
    """Return why a lookup cannot be, as the second half of a sentence, or None."""
    if not isinstance(index, LookupIndex):
        return "is no LookupIndex"
    if not index.fields:
        return "names no field"
    options: Any = model._meta
    if any(field.is_relation for field in options.pk_fields):
        return f"needs a primary key that is no relation, unlike {options.object_name}'s"
    columns = {field.name: field for field in options.local_concrete_fields}
    for name in index.fields:
        reason = "is no column of the model" if name not in columns else _unfit(model, columns[name])
        if reason is not None:
            return f"names {name!r}, which {reason}"
    if len(set(index.fields)) < len(index.fields):
        return "names a field twice"
    return None


def _unfit(model: type[models.Model], field: Any) -> str | None:
    if field.name in {getattr(model, "shard_key", None), "bucket"} or field in model._meta.pk_fields:
        return "names the bucket without a lookup"
    if field.is_relation:
        return "is a foreign key"
    if field.generated:
        return "is computed by the database"
    if isinstance(field, (models.JSONField, models.FileField)):
        return f"is a {type(field).__name__}"
    return None


def _made(model: type[models.Model], index: LookupIndex) -> Lookup:
    options: Any = model._meta
    looked_up = [options.get_field(name) for name in index.fields]
    columns = "_".join(field.column for field in looked_up)
    table = strip_quotes(options.db_table).replace('"."', "_")
    name = index.name or truncate_name(f"{table}_{columns}_lookup", LONGEST_NAME)
    meta = type(
        "Meta",
        (),
        {
            "app_label": options.app_label,
            "apps": options.apps,
            "db_table": name,
            "default_permissions": (),
            **_constraint(index, name),
        },
    )
    body = {
        "__module__": model.__module__,
        "__qualname__": class_name(model, index),
        "__doc__": f"Where the {options.object_name} with given {', '.join(index.fields)} is.",
        "Meta": meta,
        **_pk_columns(options),
        "bucket": models.SmallIntegerField(),
        **{field.name: column_like(field) for field in looked_up},
    }
    made: Any = type(class_name(model, index), (LookupEntry,), body)
    return Lookup(name, model, made, tuple(field.attname for field in looked_up), index.unique)


def class_name(model: type[models.Model], index: LookupIndex) -> str:
    """Return the name of the generated model: "UserEmailLookup"."""
    words = "".join(part.capitalize() for name in index.fields for part in name.split("_"))
    return f"{model._meta.object_name}{words}Lookup"


def _constraint(index: LookupIndex, name: str) -> dict[str, Any]:
    if index.unique:
        constraint = models.UniqueConstraint(fields=index.fields, name=truncate_name(f"{name}_key", LONGEST_NAME))
        return {"constraints": [constraint]}
    return {"indexes": [models.Index(fields=[*index.fields, "bucket"], name=truncate_name(f"{name}_idx", 30))]}


def _pk_columns(options: Any) -> dict[str, Any]:
    """Return the fields of the row's primary key, as those of the entry's."""
    if not isinstance(options.pk, models.CompositePrimaryKey):
        return {options.pk.name: column_like(options.pk, primary_key=True)}
    parts = {field.name: column_like(field) for field in options.pk_fields}
    return {**parts, options.pk.name: models.CompositePrimaryKey(*parts)}


def column_like(field: Any, *, primary_key: bool = False) -> Any:
    """Return a field of the same type as a column of the sharded table, and with nothing else of it."""
    kept: dict[str, Any] = {"primary_key": True} if primary_key else {}
    if hasattr(field, "bucket_in"):
        # A shard id is made for rows of sharded models only.
        plain = models.UUIDField if isinstance(field, models.UUIDField) else models.BigIntegerField
        return plain(**kept)
    counted = COUNTED.get(field.get_internal_type())
    if counted is not None:
        return counted(**kept)
    _, _, args, kwargs = field.deconstruct()
    options = {name: value for name, value in kwargs.items() if name not in LEFT_OUT}
    if field.db_index and not primary_key:
        # A SlugField has an index of its own, unless it is told otherwise.
        options["db_index"] = False
    made: Any = type(field)(*args, **options, **kept)
    # What the row's field computes is computed: an entry takes the stored value.
    made.pre_save = lambda entry, add: getattr(entry, made.attname)
    return made


def _refused(entry: models.Model, verb: str) -> LookupRefused:
    options = entry._meta
    return LookupRefused(
        f"A {options.object_name} is an entry of a lookup and cannot be {verb}: entries are written together with "
        f"their rows. Write the row instead.",
        model=options.label,
        lookup=options.db_table,
    )

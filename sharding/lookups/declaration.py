"""
What a sharded model declares: fields by which its rows are found without their shard key; and what is made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db.models import Model


class LookupIndex:
    """
    A second key of a sharded model, kept in the control database::

        class User(ShardedModel):
            shard_key = "tenant_id"
            lookups = [LookupIndex(fields=["email"], unique=True)]

    Args:
        fields: names of the model's own columns; all of them together are the second key.
        unique: two rows of the cluster never have the same values. Rows with a NULL among them are not compared.
        name: the table's name; left out, it is made of the model's table and the columns.
    """

    def __init__(self, *, fields: Sequence[str], unique: bool = False, name: str | None = None) -> None:
        self.fields = tuple(fields) if isinstance(fields, (list, tuple)) else (fields,)
        self.unique = unique
        self.name = name

    def __repr__(self) -> str:
        unique = ", unique=True" if self.unique else ""
        name = f", name={self.name!r}" if self.name is not None else ""
        return f"LookupIndex(fields={list(self.fields)!r}{unique}{name})"


@dataclass(frozen=True, eq=False)
class Lookup:
    """One lookup of one sharded model."""

    #: Its table, and its name everywhere.
    name: str
    sharded: type[Model]
    #: The generated model of its entries.
    model: type[Model]
    #: The looked-up columns by attname.
    attnames: tuple[str, ...]
    unique: bool

    @property
    def entries(self) -> Any:
        """Return the manager of the entries."""
        return self.model._base_manager

"""
The name of a database variable: which alias it describes, and as what.

Given the names of the environment; returns ``DatabaseVariable`` values in the order of ``DATABASES``. Knows no URL.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from django.db import DEFAULT_DB_ALIAS

from sharding.conf import REPLICA_INFIX, SHARD_PREFIX

#: In small letters too: left alone, it would be a project on SQLite files that nobody wanted.
_OURS = re.compile(r"(?:DATABASE|SHARD)_URL(?:_.*)?", re.DOTALL | re.IGNORECASE)
_SHAPE = re.compile(
    r"(?P<primary>(?P<family>DATABASE|SHARD)_URL(?:_(?P<name>[A-Za-z0-9]+(?:_[A-Za-z0-9]+)*))?)"
    r"(?:__REPLICA_(?P<replica>[1-9][0-9]*))?(?P<direct>__DIRECT)?"
)
_ONE_UNDERSCORE = re.compile(r"(.*)_(REPLICA_[0-9]+|DIRECT)", re.IGNORECASE)


class UnusableName(Exception):
    """A variable whose name says nothing, the same as another, or something incomplete; the message names it."""


@dataclass(frozen=True, slots=True)
class DatabaseVariable:
    """What the name of one variable says: ``SHARD_URL_A__REPLICA_1`` is replica 1 of the alias ``shard_a``."""

    name: str
    primary: str
    primary_alias: str
    replica: int = 0
    direct: bool = False

    @property
    def alias(self) -> str:
        return f"{self.primary_alias}{REPLICA_INFIX}{self.replica}" if self.replica else self.primary_alias

    @property
    def is_shard(self) -> bool:
        return self.primary_alias.startswith(SHARD_PREFIX)

    @property
    def in_cluster(self) -> bool:
        """Return whether the URL is that of ``default`` or of a shard, so that it takes our ENGINE."""
        return not self.replica and (self.is_shard or self.primary_alias == DEFAULT_DB_ALIAS)

    @property
    def order(self) -> tuple[bool, bool, bool, str, int]:
        """Return the place in ``DATABASES``: default, shards, others, each before its replicas; addresses at last."""
        is_default = self.primary_alias == DEFAULT_DB_ALIAS
        return self.direct, not is_default, not self.is_shard, self.primary_alias, self.replica


def is_ours(name: str) -> bool:
    """Return whether a variable is meant to describe a database."""
    return _OURS.fullmatch(name) is not None


def read(names: Iterable[str]) -> list[DatabaseVariable]:
    """
    Return the database variables among ``names``, in the order of ``DATABASES`` with the ``__DIRECT`` ones last.

    Raises:
        UnusableName: A name is malformed, two describe one alias, or one lacks the variable it refers to.
    """
    variables = sorted((_variable(name) for name in sorted(names) if is_ours(name)), key=lambda v: v.order)
    seen: dict[tuple[str, bool], str] = {}
    for variable in variables:
        other = seen.setdefault((variable.alias, variable.direct), variable.name)
        if other != variable.name:
            raise UnusableName(
                f"{other} and {variable.name} both describe the alias {variable.alias!r}. Keep one of them."
            )
    _require_complete(variables)
    return variables


def _variable(name: str) -> DatabaseVariable:
    found = _SHAPE.fullmatch(name)
    if found is None:
        raise UnusableName(
            f"{name!r} is not the name of a database variable. The names are DATABASE_URL, DATABASE_URL_<APP> and "
            f"SHARD_URL_<NAME>, each alone or followed by __REPLICA_<NUMBER> or __DIRECT."
        )
    slip = _ONE_UNDERSCORE.fullmatch(found["primary"])
    if slip is not None:
        raise UnusableName(f"{name} has one underscore before {slip[2]}. Write {slip[1]}__{slip[2].upper()}, with two.")
    alias = _primary_alias(name, found["family"], (found["name"] or "").lower())
    return DatabaseVariable(name, found["primary"], alias, int(found["replica"] or 0), found["direct"] is not None)


def _primary_alias(name: str, family: str, given: str) -> str:
    if family == "SHARD":
        if not given:
            raise UnusableName(f"{name} names no shard. Write SHARD_URL_<NAME>, for example SHARD_URL_A for shard_a.")
        alias = f"{SHARD_PREFIX}{given}"
    else:
        alias = f"{given}_db" if given else DEFAULT_DB_ALIAS
        if alias.startswith(SHARD_PREFIX):
            raise UnusableName(
                f"{name} describes an app database, but its alias {alias!r} would count as a shard. Write "
                f"SHARD_URL_<NAME> for a shard, and another name for an app database."
            )
    if REPLICA_INFIX in alias:
        raise UnusableName(
            f"{name} describes a primary, but its alias {alias!r} would count as a replica. Write another name, or "
            f"__REPLICA_<NUMBER> after the name of the primary's variable."
        )
    return alias


def _require_complete(variables: list[DatabaseVariable]) -> None:
    aliases = {variable.alias for variable in variables if not variable.direct}
    for variable in variables:
        if variable.primary_alias not in aliases:
            needed = variable.primary
        elif variable.alias not in aliases:
            needed = variable.name.removesuffix("__DIRECT")
        else:
            continue
        raise UnusableName(f"{variable.name} is set, but {needed} is not. Set {needed} too, or unset {variable.name}.")
    if variables and DEFAULT_DB_ALIAS not in aliases:
        raise UnusableName(
            f"{variables[0].name} is set, but DATABASE_URL is not. Set DATABASE_URL to the URL of the control "
            f"database, the alias 'default'."
        )

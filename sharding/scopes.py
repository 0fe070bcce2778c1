"""
A scope: every query of one family of sharded models inside it is limited to one shard key.

It is a context manager over a ContextVar, so it ends by itself, nests, and follows async code. There is no setter.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db.models import Model
from django.db.models.lookups import Exact, In
from django.db.models.sql import Query
from django.db.models.sql.where import AND, WhereNode

from sharding import registry, routing
from sharding.errors import ScopeConflict, ShardKeyMissing
from sharding.registry import Entry

#: {family: prepared key}
_scopes: ContextVar[dict[str, Any]] = ContextVar("sharding_scope", default={})  # noqa: B039 - never mutated


@contextmanager
def scope(key: Any, *, of: type[Model] | None = None) -> Iterator[None]:
    """
    Limit the sharded models of one family to one shard key: queries get it as a filter, new rows get it as their key.

    Args:
        key: the shard key, as the application writes it.
        of: a model of the family that is meant; needed only when the project has several families.

    Raises:
        ShardKeyMissing: the key is None, or ``of`` is needed.
        UnhashableKey: the key is of a type that cannot be a key.
    """
    entry = registry.get(of) if of is not None else _only_family()
    prepared = entry.prepare_key(key)
    entry.bucket_of_key(key)
    token = _scopes.set({**_scopes.get(), entry.family: prepared})
    try:
        yield
    finally:
        _scopes.reset(token)


@contextmanager
def outside(entry: Entry) -> Iterator[None]:
    """Lift the scope of the entry's family, for what is unique over all keys."""
    token = _scopes.set({family: key for family, key in _scopes.get().items() if family != entry.family})
    try:
        yield
    finally:
        _scopes.reset(token)


def key_of(entry: Entry) -> Any:
    """Return the prepared key that the entry's family is limited to, or None outside of a scope."""
    return _scopes.get().get(entry.family)


def apply(query: Query, entry: Entry) -> Query:
    """
    Return ``query`` limited to the scope of the entry's family; the same object when there is none.

    Raises:
        ScopeConflict: the query names another key.
    """
    scopes = _scopes.get()
    if not scopes or entry.family not in scopes:
        return query
    return _limited(query, entry, scopes[entry.family])


def refuse(entry: Entry, what: str) -> None:
    """
    Refuse something that concerns rows of every key, if there is a scope of the entry's family.

    Raises:
        ScopeConflict: there is one.
    """
    key = _scopes.get().get(entry.family)
    if key is not None:
        raise ScopeConflict(
            f"{what} concerns rows of every {entry.key}, inside a scope of {entry.key}={key!r}. Leave the scope first.",
            model=entry.label,
            field=entry.key,
            scope=key,
            found=None,
        )


def complete(instance: Model, entry: Entry) -> None:
    """
    Give a new row without a shard key the key of the scope it is made in, or of the row that it refers to.

    Raises:
        ScopeConflict: the row has another key than the scope.
    """
    key = _scopes.get().get(entry.family)
    # A deferred key stays unread: reading it would be a query.
    own = instance.__dict__.get(entry.key_attname)
    if own is None and instance._state.adding:
        own = _key_of_target(instance, entry)
    if own is None and instance._state.adding:
        inherited = key if key is not None else _key_of_parent(instance, entry)
        if inherited is not None:
            setattr(instance, entry.key_attname, inherited)
    elif own is not None and key is not None and entry.prepare_key(own) != key:
        raise _conflict(entry, key, own)


def _key_of_target(instance: Model, entry: Entry) -> Any:
    """
    Give an instance the key of the row that is its key (``account=account``), which was saved only after it was given.

    bulk_create() makes ids before Django does this.
    """
    field: Any = entry.key_field
    target = instance._state.fields_cache.get(entry.key)
    if target is None:
        return None
    key = getattr(target, field.target_field.attname)
    if key is not None:
        setattr(instance, entry.key_attname, key)
    return key


def _key_of_parent(instance: Model, entry: Entry) -> Any:
    """Return the shard key of a row that the instance was given (``order=order``): both have the same one."""
    for field in entry.references.values():
        parent: Any = instance._state.fields_cache.get(field.name)
        other = registry.entry(type(parent)) if parent is not None else None
        if other is not None and other.family == entry.family:
            return getattr(parent, other.key_attname)
    return None


def _limited(query: Query, entry: Entry, key: Any) -> Query:
    limited = query.clone()
    inner = getattr(limited, "inner_query", None)
    if inner is not None:
        limited.inner_query = _limited(inner, entry, key)  # type: ignore[attr-defined]
        return limited
    if limited.combinator:
        limited.combined_queries = tuple(
            each if other is None else apply(each, other)
            for each in limited.combined_queries
            for other in [registry.entry(each.model)]
        )
        return limited
    for named in _keys_named(query.where, entry):
        if key not in named:
            raise _conflict(entry, key, named[0] if len(named) == 1 else named)
    column: Any = entry.key_field.get_col(limited.get_initial_alias() or entry.table)
    named_key: Any = Exact(column, key)
    limited.where = WhereNode([limited.where, named_key], AND)
    return limited


def _keys_named(where: WhereNode, entry: Entry) -> Iterator[list[Any]]:
    """Yield the keys that each ANDed condition on the shard key allows."""
    for child in routing.anded(where):
        if not isinstance(child, (Exact, In)):
            continue
        target = getattr(child.lhs, "target", None)
        if target is None or target.attname != entry.key_attname or registry.entry(target.model) is not entry:
            continue
        values = child.rhs if isinstance(child, In) else [child.rhs]
        if hasattr(values, "resolve_expression"):
            continue
        plain = [each for each in values if not hasattr(each, "resolve_expression")]
        if plain:
            yield plain


def _only_family() -> Entry:
    families = registry.families()
    if len(families) == 1:
        return next(iter(families.values()))[0]
    raise ShardKeyMissing(
        f"scope() needs of=…, a model of the family that the key belongs to, "
        f"since this project has several: {', '.join(sorted(families)) or 'none'}.",
        model="",
        field="of",
    )


def _conflict(entry: Entry, key: Any, found: Any) -> ScopeConflict:
    return ScopeConflict(
        f"This {entry.model._meta.object_name} names {entry.key}={found!r} inside a scope of {entry.key}={key!r}. "
        f"Leave the scope first.",
        model=entry.label,
        field=entry.key,
        scope=key,
        found=found,
    )

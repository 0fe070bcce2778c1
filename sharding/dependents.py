"""
The sharded rows that depend on a row by what tells no key, on whichever shards they are: what delete() asks for.

That is a foreign key to a global row, or a generic one. Django's collector asks the base manager of the dependent
model, and names no shard key. Every shard is asked, as one of Django's own questions; what is then written goes to the
shards that hold such rows, by key and id.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Self

from django.db.models import Manager, QuerySet
from django.db.models.base import ModelBase
from django.db.models.expressions import Col
from django.db.models.fields.related_lookups import RelatedIn
from django.db.models.lookups import Exact, In
from django.db.models.sql.where import WhereNode

from sharding import deletion, registry, routing, scopes


class DependentQuerySet(QuerySet[Any]):
    """A queryset of Django's own, which finds dependent rows without their keys."""

    _db: str | None
    _hints: dict[str, Any]
    _fields: tuple[Any, ...] | None

    def _fetch_all(self) -> None:
        if self._result_cache is not None or not self._names_no_key():
            is_new = self._result_cache is None
            super()._fetch_all()
            if is_new:
                self._refuse_hidden()
            return
        if self._depends_on_global_rows():
            scopes.refuse(registry.get(self.model), f"Looking for dependent rows of {self.model._meta.label}")
        with routing.probe():
            super()._fetch_all()

    def select_related(self, *fields: Any) -> Self:
        # The admin asks for the global rows along with them, which it has.
        if fields and fields != (None,) and self._names_no_key():
            fields = tuple(name for name in fields if not self._is_global(self.model._meta.get_field(name)))
            if not fields:
                return self.all()
        return super().select_related(*fields)

    def update(self, **values: Any) -> int:
        if not self._names_no_key():
            return super().update(**values)
        rows: QuerySet[Any] = QuerySet(self.model, using=self._db)
        return sum(rows.filter(named).update(**values) for named in deletion.batches(self.model, self._named()))

    def _raw_delete(self, using: Any) -> int:
        if not self._names_no_key():
            return super()._raw_delete(using)
        return deletion.delete_rows(self.model, self._named(), using)

    def _refuse_hidden(self) -> None:
        """
        Check that a scope hides none of the rows to which several instances refer.

        Django takes what it does not find for missing, and remembers so on the instances: where it prefetches, and by
        FETCH_PEERS (6.1) also for those that nobody asked about.

        Raises:
            ScopeConflict: it hides some.
        """
        entry, found = registry.entry(self.model), self._result_cache or []
        if entry is None or scopes.key_of(entry) is None or self._fields is not None:
            return
        # Of generic foreign keys Django asks by the ids alone.
        named = [each.rhs for each in _leaves(self.query.where) if isinstance(each, In) and self._is_target(each.lhs)]
        if any(hasattr(each, "__len__") and len(each) > len(found) for each in named):
            with scopes.outside(entry):
                number = self.query.clone().get_count(using=self.db)
            if number > len(found):
                scopes.refuse(entry, f"Fetching the {entry.label} rows to which several rows refer")

    def _named(self) -> Self:
        """Return the rows with their ids and keys alone."""
        return self.only("pk", registry.get(self.model).key_attname)

    def _names_no_key(self) -> bool:
        # Of its other questions Django knows the instance; prefetch_related() is asked for by the application.
        if self._hints or routing.native_alias() is not None:
            return False
        return self._depends_by_foreign_key() or self._generic_type() is not None

    def _depends_on_global_rows(self) -> bool:
        found = self._generic_type()
        return registry.entry(found.model_class()) is None if found is not None else self._depends_by_foreign_key()

    def _depends_by_foreign_key(self) -> bool:
        found = list(_leaves(self.query.where))
        return bool(found) and all(isinstance(each, RelatedIn) and self._is_global_column(each.lhs) for each in found)

    def _generic_type(self) -> Any:
        """Return the type of the rows on which these depend by a generic foreign key, or None if they do not."""
        # Django sorts the conditions by the names of the fields.
        match sorted(_leaves(self.query.where), key=lambda each: isinstance(each, In)):
            case [Exact(lhs=Col() as of_type, rhs=int() as number), In(lhs=Col() as of_id)]:
                named = (of_type.target.name, of_id.target.name)
                if any(named == (each.ct_field, each.fk_field) for each in _generic_keys(self.model)):
                    types: Any = of_type.target.related_model
                    return types.objects.db_manager(self._db).get_for_id(number)
        return None

    def _is_target(self, column: Any) -> bool:
        return bool(self._hints) or (isinstance(column, Col) and column.target is self.model._meta.pk)

    def _is_global_column(self, column: Any) -> bool:
        return isinstance(column, Col) and self._is_global(column.target)

    def _is_global(self, field: Any) -> bool:
        return field.is_relation and registry.entry(field.related_model) is None


class ShardedModelBase(ModelBase):
    """The class of sharded model classes: their base manager is ours, unless Meta.base_manager_name says otherwise."""

    @property
    def _base_manager(cls: Any) -> Any:
        found: Any = super()._base_manager  # type: ignore[misc, arg-type]
        if type(found) is Manager and found.auto_created:
            # It is nobody's attribute, so that migrations know nothing of it.
            made: Any = _DependentManager()
            made.name, made.model, made.auto_created = found.name, found.model, True
            found = cls._meta.base_manager = made
        return found


_DependentManager = Manager.from_queryset(DependentQuerySet)


def _generic_keys(model: Any) -> Iterator[Any]:
    # The class itself can be imported only where django.contrib.contenttypes is installed.
    return (each for each in model._meta.private_fields if hasattr(each, "ct_field") and hasattr(each, "fk_field"))


def _leaves(where: WhereNode) -> Iterator[Any]:
    for child in where.children:
        if isinstance(child, WhereNode):
            yield from _leaves(child)
        else:
            yield child

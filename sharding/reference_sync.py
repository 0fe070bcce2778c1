"""
Compare the copies of reference tables with the control database's rows, and bring a shard up to date.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from django.core.management.color import no_style
from django.db import DEFAULT_DB_ALIAS, IntegrityError, connections, transaction
from django.db.models import Model

from sharding import cluster_map, conf, reference_copies, reference_models, reference_rows, registry, routing
from sharding.errors import ReferenceOutdated
from sharding.reference_rows import Row, Table


@dataclass(slots=True)
class Drift:
    """How the copy of one table on a shard differs from the control database's rows, and what was done about it."""

    model: str
    alias: str
    rows: int
    missing: list[Row]
    differing: list[Row]
    surplus: list[Row]
    #: Primary keys of surplus rows that were left, by the label of a model whose rows refer to them.
    referred_to: dict[str, list[Row]] = field(default_factory=dict)
    repaired: int = 0

    @property
    def wrong(self) -> int:
        return len(self.missing) + len(self.differing) + len(self.surplus) - self.repaired


def shards_behind() -> dict[str, list[str]]:
    """Return the shards that do not hold all reference tables, with the names of those they lack."""
    found = {alias: reference_copies.missing(alias) for alias in conf.current().shards}
    return {alias: tables for alias, tables in found.items() if tables}


def bring_up_to_date(alias: str, models: Sequence[type[Model]] | None = None) -> list[Drift]:
    """
    Give a shard all rows of reference models (all by default) as the control database has them, in one transaction.

    Writes of these models wait meanwhile. A surplus row to which other rows refer is left, and named in the result.
    Tables that one of the two databases does not have yet are passed over.

    Returns:
        A drift for each table that was compared, empty ones as well.

    Raises:
        ReferenceOutdated: such a surplus row has a unique value that belongs to another row; nothing is changed.
    """
    control, shard = connections[DEFAULT_DB_ALIAS], connections[alias]
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        wanted = list(reference_models.models() if models is None else models)
        reference_copies.lock(control, [model._meta.db_table for model in wanted])
        there = _present(control, wanted)
        with transaction.atomic(using=alias), routing.native(alias):
            shared = _present(shard, there)
            tables = {model: _shared_table(model, control, shard) for model in shared}
            drifts = {model: _drift(model, table, alias) for model, table in tables.items()}
            for model in reversed(shared):
                _delete_surplus(shard, model, tables[model], drifts[model])
            for model in shared:
                _write(shard, model, tables[model], drifts[model])
        held = [model for model in shared if tables[model] == reference_rows.table_of(model)]
        reference_copies.add(control, alias, [model._meta.db_table for model in held])
    # What this process knew is older.
    cluster_map.forget()
    return list(drifts.values())


def compare(alias: str, model: type[Model]) -> Drift:
    """Return how a shard's copy of one table differs, without changing or locking anything."""
    control, shard = connections[DEFAULT_DB_ALIAS], connections[alias]
    with transaction.atomic(using=DEFAULT_DB_ALIAS), transaction.atomic(using=alias), routing.native(alias):
        return _drift(model, _shared_table(model, control, shard), alias)


def fill(connection: Any, model: Any) -> int:
    """Give a new, empty table of a shard the control database's rows, as far as both have the columns."""
    control = connections[DEFAULT_DB_ALIAS]
    if not _present(control, [model]):
        return 0
    table = _shared_table(model, control, connection)
    with transaction.atomic(using=DEFAULT_DB_ALIAS):
        reference_rows.write_plainly(control)
        rows = reference_rows.read(control, table)
    reference_rows.insert(connection, table, rows)
    return len(rows)


def reset_sequences(connection: Any) -> None:
    """
    Let a shard's own sequences go on after the ids that it was given, for a data migration that makes rows there.

    The rows that the application writes have ids of the control database's making, which do not move them.
    """
    if connection.alias not in conf.current().shards:
        return
    there = _present(connection, reference_models.models())
    tables = {model: _shared_table(model, connection) for model in there}
    models = [model for model, table in tables.items() if set(table.key) <= set(table.columns)]
    with connection.cursor() as cursor:
        for statement in connection.ops.sequence_reset_sql(no_style(), models):
            cursor.execute(statement)


def _present(connection: Any, models: Sequence[type[Model]]) -> list[type[Model]]:
    names = set(connection.introspection.table_names())
    return [model for model in models if model._meta.db_table in names]


def _shared_table(model: type[Model], *databases: Any) -> Table:
    """Return the table of a model with those of its columns that all of the databases have."""
    table = reference_rows.table_of(model)
    for connection in databases:
        with connection.cursor() as cursor:
            found = {each.name for each in connection.introspection.get_table_description(cursor, table.name)}
        table = replace(table, columns=tuple(column for column in table.columns if column in found))
    return table


def _drift(model: type[Model], table: Table, alias: str) -> Drift:
    wanted, found = (_rows(connections[each], table) for each in (DEFAULT_DB_ALIAS, alias))
    return Drift(
        model._meta.label,
        alias,
        len(wanted),
        missing=[row for key, row in wanted.items() if key not in found],
        differing=[row for key, row in wanted.items() if key in found and found[key] != row],
        surplus=[row for key, row in found.items() if key not in wanted],
    )


def _rows(connection: Any, table: Table) -> dict[Row, Row]:
    reference_rows.write_comparably(connection)
    rows = reference_rows.read(connection, table)
    keyed = dict(zip(table.keys(rows), rows, strict=True))
    return {key: keyed[key] for key in sorted(keyed, key=reference_rows.in_order)}


def _delete_surplus(shard: Any, model: type[Model], table: Table, drift: Drift) -> None:
    """Delete the rows that the control database does not have, except those to which others refer."""
    kept: set[Row] = set()
    keys = table.keys(drift.surplus)
    for label, places in _referring(shard, model, table, drift.surplus):
        drift.referred_to[label] = [keys[place] for place in places]
        kept.update(drift.referred_to[label])
    free = [key for key in keys if key not in kept]
    if free:
        reference_rows.delete(shard, table, free)
    drift.repaired += len(free)


def _referring(shard: Any, model: type[Model], table: Table, rows: Sequence[Row]) -> Iterator[tuple[str, list[int]]]:
    """Yield the label of each model on the shard whose rows refer to some of ``rows``, and the places of these."""
    names = set(shard.introspection.table_names())
    for key in _foreign_keys_to(model) if rows else ():
        holder = key.model
        if holder._meta.db_table not in names or not _is_on_shards(holder):
            continue
        place = table.columns.index(key.target_field.column)
        named = reference_rows.present(shard, holder._meta.db_table, key.column, [row[place] for row in rows])
        places = [number for number, row in enumerate(rows) if row[place] in named]
        if places:
            yield holder._meta.label, places


def _foreign_keys_to(model: type[Model]) -> list[Any]:
    relations: list[Any] = [each for each in model._meta.get_fields(include_hidden=True) if each.auto_created]
    keys = [each.field for each in relations if each.one_to_many or each.one_to_one]
    # Generic relations have no column of their own.
    return [key for key in keys if key.column]


def _is_on_shards(model: type[Model]) -> bool:
    return reference_models.is_reference(model) or registry.entry(model) is not None


def _write(shard: Any, model: type[Model], table: Table, drift: Drift) -> None:
    try:
        with transaction.atomic(using=shard.alias):
            _write_in_turn(shard, table, drift)
    except IntegrityError:
        if _deletes_referring_rows(model):
            raise
        _write_at_once(shard, table, drift)
    drift.repaired += len(drift.differing) + len(drift.missing)


def _deletes_referring_rows(model: type[Model]) -> bool:
    """Return whether the database itself deletes or changes what refers to a row that is deleted (Django 6.1)."""
    return any(type(key.remote_field.on_delete).__name__ == "DatabaseOnDelete" for key in _foreign_keys_to(model))


def _write_at_once(shard: Any, table: Table, drift: Drift) -> None:
    """Write rows that have exchanged unique values. Foreign keys are looked at when the transaction ends."""
    try:
        reference_rows.delete(shard, table, table.keys(drift.differing))
        reference_rows.insert(shard, table, [*drift.differing, *drift.missing])
    except IntegrityError as error:
        kept = {key for keys in drift.referred_to.values() for key in keys}
        if not kept:
            raise
        named = ", ".join("/".join(map(str, key)) for key in sorted(kept, key=reference_rows.in_order))
        raise ReferenceOutdated(
            f"The rows of {drift.model} cannot be copied to {shard.alias!r}: rows that only {shard.alias} has are in "
            f"the way, and {', '.join(drift.referred_to)} refers to them (primary key {named}). Let "
            f"these refer to other rows, and copy again.",
            table=table.name,
            alias=shard.alias,
        ) from error


def _write_in_turn(shard: Any, table: Table, drift: Drift) -> None:
    steps: tuple[tuple[Callable[..., None], list[Row]], ...] = (
        (reference_rows.update, drift.differing),
        (reference_rows.insert, drift.missing),
    )
    for write, rows in steps:
        if rows:
            write(shard, table, rows)

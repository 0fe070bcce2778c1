"""
Compare the real schemas of the shards with that of the control database: what migrations should have kept equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import DEFAULT_DB_ALIAS, Error, connections, router
from django.db.models import Model

from sharding import conf, reference_models, registry
from sharding.control import ShardIdentity
from sharding.direct_connection import direct_connection
from sharding.errors import PooledConnection, ShardsUnavailable
from sharding.migrating import postgresql_schema, sqlite_schema
from sharding.migrating.schema import Difference, Schema, differences
from sharding.migrating.survey import PARALLEL, reason
from sharding.minting import SEQUENCE

READERS = {"postgresql": postgresql_schema.read, "sqlite": sqlite_schema.read}


def schema_drift(shards: Sequence[str] | None = None) -> list[Difference]:
    """
    Return what the tables of the shards (all by default) have otherwise than those of the control database.

    Columns, types, NULL, defaults, indexes and constraints are compared, and so are the toolkit's own table and
    sequence on each shard; the order of columns and made-up names are not.

    Raises:
        ShardsUnavailable: a shard, or the control database, did not answer.
    """
    compared = conf.current().shards if shards is None else tuple(shards)
    if not compared:
        return []
    aliases = (DEFAULT_DB_ALIAS, *compared)
    with ThreadPoolExecutor(min(PARALLEL, len(aliases)), "drift") as pool:
        read = dict(zip(aliases, pool.map(_read, aliases), strict=True))
    failures = {alias: found for alias, found in read.items() if isinstance(found, Exception)}
    if failures:
        which = "; ".join(f"{alias}: {reason(error)}" for alias, error in failures.items())
        raise ShardsUnavailable(
            f"Schemas cannot be compared, because databases did not answer: {which}", failures=failures
        )
    schemas = {alias: found for alias, found in read.items() if isinstance(found, Schema)}
    control = schemas[DEFAULT_DB_ALIAS]
    return [each for alias in compared for each in differences(alias, schemas[alias], control)]


def _read(alias: str) -> Schema | Exception:
    try:
        with direct_connection(alias) as connection:
            return READERS[connection.vendor](connection, _tables(alias), [SEQUENCE], _written_names())
    except (Error, PooledConnection) as error:
        return error
    finally:
        connections.close_all()


def _tables(alias: str) -> list[str]:
    """Return the tables that the control database and the shards have in common."""
    shared = [model for model in _models() if router.allow_migrate_model(alias, model)]
    return sorted({ShardIdentity._meta.db_table, *(model._meta.db_table for model in shared)})


def _models() -> list[type[Model]]:
    return [*registry.models(), *reference_models.models()]


def _written_names() -> set[str]:
    """Return the names of indexes and constraints that stand in a model, by which later migrations find them."""
    options = [model._meta for model in _models()]
    return {each.name for option in options for each in (*option.indexes, *option.constraints)}

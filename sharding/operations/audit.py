"""
Look at every stored row: does its bucket agree with its key, its id with its bucket, and its shard with the map?
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from django.apps import apps
from django.db.models import Case, Value, When

from sharding import reference_models, registry, routing
from sharding.bucket_map import BucketMap
from sharding.operations import places
from sharding.registry import BUCKET_COLUMN, Entry

BATCH = 2_000
#: Buckets that are put right in one statement; SQLite takes no deeper expressions.
AT_ONCE = 200


class Kind(StrEnum):
    """What is wrong with a row."""

    KEY = "key"
    BUCKET = "bucket"
    ID = "id"
    REFERENCE = "reference"
    OWNER = "owner"


#: What each kind means, as a part of a sentence.
MEANING = {
    Kind.KEY: "the shard key has no bucket",
    Kind.BUCKET: "the stored bucket is not that of the shard key",
    Kind.ID: "the id was made for another bucket",
    Kind.REFERENCE: "a foreign key names a row of another bucket",
    Kind.OWNER: "the shard does not own the bucket",
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong with one row."""

    model: str
    alias: str
    kind: Kind
    id: Any
    key: Any
    #: What was found and what belongs there: buckets, or shards for Kind.OWNER; None where there is none.
    found: int | str | None
    expected: int | str | None
    field: str


@dataclass(frozen=True, slots=True)
class Step:
    """One batch of one table."""

    model: str
    alias: str
    rows: int
    findings: tuple[Finding, ...]
    repaired: int = 0


def audit(
    entry: Entry,
    alias: str,
    bucket_map: BucketMap,
    *,
    moving: Set[int] = frozenset(),
    repair: bool = False,
    size: int = BATCH,
) -> Iterator[Step]:
    """
    Yield a step for each batch of a model's rows on one database.

    With ``repair``, wrong stored buckets are put right. A row that is on the wrong shard is never moved or deleted: its
    twin may be on the right one. Rows of buckets that are ``moving`` may be on two.
    """
    columns = [BUCKET_COLUMN, entry.key_attname, *(name for name in entry.columns if name != entry.key_attname)]
    for batch in places.in_batches(entry, alias, columns, size=size):
        findings = tuple(each for row in batch for each in _of_row(entry, alias, bucket_map, columns, row, moving))
        repaired = _repair(entry, alias, findings) if repair else 0
        yield Step(entry.label, alias, len(batch), findings, repaired)


def _of_row(
    entry: Entry, alias: str, bucket_map: BucketMap, columns: Sequence[str], row: Sequence[Any], moving: Set[int]
) -> Iterator[Finding]:
    pk, values = row[0], dict(zip(columns, row[1:], strict=True))
    key = values[entry.key_attname]
    bucket = places.bucket_of_key(entry, key)

    def finding(kind: Kind, field: str, found: int | str | None, expected: int | str | None) -> Finding:
        return Finding(entry.label, alias, kind, pk, key, found, expected, field)

    if bucket is None:
        yield finding(Kind.KEY, entry.key, None, None)
        return
    if values[BUCKET_COLUMN] != bucket:
        yield finding(Kind.BUCKET, BUCKET_COLUMN, values[BUCKET_COLUMN], bucket)
    for attname, bucket_in in entry.columns.items():
        if attname == entry.key_attname or values[attname] is None:
            continue
        field: Any = entry.model._meta.get_field(attname)
        found = bucket_in(field.get_prep_value(values[attname]))
        if found != bucket:
            yield finding(Kind.REFERENCE if field.is_relation else Kind.ID, field.name, found, bucket)
    if bucket_map.owner(bucket) != alias and bucket not in moving:
        yield finding(Kind.OWNER, BUCKET_COLUMN, alias, bucket_map.owner(bucket))


def _repair(entry: Entry, alias: str, findings: Sequence[Finding]) -> int:
    """Write the buckets of the keys, and return how many rows that were."""
    # The database itself refuses a bucket that the id contradicts.
    contradicted = {each.id for each in findings if each.kind is Kind.ID}
    ids: dict[Any, dict[Any, list[Any]]] = {}
    for each in findings:
        if each.kind is Kind.BUCKET and each.id not in contradicted:
            ids.setdefault(each.found, {}).setdefault(each.expected, []).append(each.id)
    # One statement for many buckets: in an adopted table, hardly two rows of a batch may have the same.
    with routing.native(alias):
        return sum(
            places.stored(entry, alias)
            .filter(pk__in=[pk for _, found in some for pk in found], bucket=before)
            .update(bucket=Case(*(When(pk__in=found, then=Value(after)) for after, found in some)))
            for before, expected in ids.items()
            for some in _parts(list(expected.items()))
        )


def _parts(buckets: Sequence[tuple[Any, list[Any]]]) -> Iterator[Sequence[tuple[Any, list[Any]]]]:
    return (buckets[start : start + AT_ONCE] for start in range(0, len(buckets), AT_ONCE))


def tables(labels: Sequence[str], alias: str) -> list[Entry]:
    """
    Return the models to audit on one database, by label: all whose table is there, or those with these labels.

    Raises:
        LookupError: a label names no model.
        NotSharded: a label names a model that is neither sharded nor a reference model.
    """
    for label in labels:
        model = apps.get_model(label)
        if not reference_models.is_reference(model):
            registry.get(model)
    return places.present(alias, places.entries(labels))

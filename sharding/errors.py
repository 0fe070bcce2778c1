"""
Every error of the toolkit, one class a cause. A message names the model, the field, the value and the remedy.

ShardingError                       everything below; never raised itself
├── UnhashableKey                   .key                        also a TypeError
├── ShardKeyMissing                 .model .field
├── ShardKeyChanged                 .model .field .old .new
├── ScopeConflict                   .model .field .scope .found
├── BucketMismatch                  .model .field .value .expected .found
├── CrossShardQuery                 .model .aliases             several shards, and nobody to merge their answers
├── CannotMerge                     .model .construct           raised by the aggregator's planner
│   ├── GatherTooLarge              .table .limit
│   └── ShardsDisagree              the shards do not compare values alike
├── DeepOffset                      .model .offset .limit
├── GlobalJoin                      .model .tables
├── RawShardedSQL                   .table
├── WrongShard                      .model .alias .expected
├── ReferenceKeyChanged             .model .field
├── ReferenceOutdated               .table .alias               a shard does not have a reference table's rows
├── ShardNotMigrated                .model .alias .table .columns
├── UnknownShard                    .alias
├── PooledConnection                .alias                      a pooler where a session of one's own is needed
├── NotSharded                      .model
├── LookupRefused                   .model .lookup
├── UnknownLookup                   .lookup
├── MapError
│   ├── MapMissing
│   ├── MapConflict                 the stored cluster disagrees with the settings
│   ├── MapOutdated                 .alias                      a shard has seen a newer map
│   ├── ShardUncertified            .alias .buckets             a shard has seen an older map, and was restored
│   └── EpochChanged                .alias .epoch               retryable: a shard shows others than the map says
├── BucketRefused                   .bucket .alias .state       retryable; never raised itself
│   ├── BucketMoved                 .forward .epoch             the bucket is another shard's now
│   └── BucketFenced                                            the bucket is about to be another shard's
├── RebalanceError                  a move cannot go on
│   ├── MoveConflict                .bucket .phase .owner .source_state .target_state
│   ├── Superseded                  .bucket .alias .generation .found .state
│   ├── PreflightFailed             .findings                   before the first move
│   ├── TablesDiffer                .differences
│   ├── CopyRefused                 .table .alias .constraint
│   ├── CopyDamaged                 .table .alias .first .last
│   └── VerificationFailed          .report
├── CrossShardTransaction           .aliases
├── PartialCommit                   .committed .failed .rolled_back .in_doubt .compensated
├── CannotCompensate                .function
├── BlockAborted                    .transaction                retryable: nothing of the block is stored
├── CommitInDoubt                   .transaction                nobody knows yet whether the block is committed
├── InvalidCursor                   .cursor                     also a ValueError
├── MigrationFailed                 .failures
├── ShardsUnavailable               .failures                   {alias: exception}
│   └── FanOutTimeout               .timeout
└── PartialRefused                  .model                      a part of an answer where only a whole one is sound
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class ShardingError(Exception):
    """Root of every error of the toolkit. Its keyword arguments become attributes."""

    def __init__(self, message: str, **facts: Any) -> None:
        super().__init__(message)
        self.__dict__.update(facts)

    def __reduce__(self) -> tuple[Any, ...]:
        # Exception's own pickling calls the class with args alone; the facts travel as state.
        return type(self), self.args, self.__dict__


class UnhashableKey(ShardingError, TypeError):
    """A value that has no bucket: None, a bool, a float, a container."""

    key: Any


class ShardKeyMissing(ShardingError):
    """Nothing in the query or the instance says which shard it belongs to."""

    model: str
    field: str


class ShardKeyChanged(ShardingError):
    """A write would change the shard key of a stored row, and so leave it where it does not belong."""

    model: str
    field: str
    old: Any
    new: Any


class ScopeConflict(ShardingError):
    """A query inside a scope names another shard key than the scope's."""

    model: str
    field: str
    scope: Any
    found: Any


class BucketMismatch(ShardingError):
    """An id or a foreign key belongs to another bucket than its row."""

    model: str
    field: str
    value: Any
    expected: int
    found: int


class CrossShardQuery(ShardingError):
    """A query needs several shards, and nothing is installed that could merge their answers."""

    model: str
    aliases: Sequence[str]


class CannotMerge(ShardingError):
    """The answers of several shards cannot be merged exactly, so they are not merged at all."""

    model: str
    construct: str


class ShardsDisagree(CannotMerge):
    """The shards do not compare values alike, so that no answer of them all is right."""


class GatherTooLarge(CannotMerge):
    """An answer needs rows of all shards in one place, and more of them than SHARDING allows."""

    table: str
    limit: int


class DeepOffset(ShardingError):
    """A query of several shards skips more rows than MAX_OFFSET, which every shard would have to send."""

    model: str
    offset: int
    limit: int


class GlobalJoin(ShardingError):
    """One statement names tables of sharded and of global models, which live on different servers."""

    model: str
    tables: Sequence[str]


class RawShardedSQL(ShardingError):
    """Raw SQL on the control database names the table of a sharded model, or writes that of a reference model."""

    table: str


class WrongShard(ShardingError):
    """A write is addressed to a shard that does not own its bucket."""

    model: str
    alias: str
    expected: str


class ReferenceKeyChanged(ShardingError):
    """An update would change the primary keys of a reference model, by which its copies are found."""

    model: str
    field: str


class ReferenceOutdated(ShardingError):
    """A shard has not been given the rows of a reference table, or cannot take them."""

    table: str
    alias: str


class ShardNotMigrated(ShardingError):
    """A shard does not have a table or columns that a model of today's code has."""

    model: str
    alias: str
    table: str
    columns: Sequence[str]


class FenceMissing(ShardingError):
    """Databases belong to the cluster, and have no triggers yet that guard their buckets."""

    aliases: Sequence[str]


class UnknownShard(ShardingError):
    """An alias that is no shard of this cluster."""

    alias: str


class PooledConnection(ShardingError):
    """A database is reached through a pooler, where a command needs a session of its own."""

    alias: str


class NotSharded(ShardingError):
    """A sharded model was expected."""

    model: str


class LookupRefused(ShardingError):
    """A write that a lookup cannot follow exactly, or one to the lookup itself."""

    model: str
    lookup: str


class UnknownLookup(ShardingError):
    """A name that is no lookup's, nor that of a model with lookups."""

    lookup: str


class MapError(ShardingError):
    """The bucket map cannot be used."""


class MapMissing(MapError):
    """The control database holds no bucket map, although shards are declared."""


class MapConflict(MapError):
    """The stored cluster was made with other settings than today's."""


class MapOutdated(MapError):
    """A shard has seen a newer bucket map than the control database holds."""

    alias: str


class ShardUncertified(MapError):
    """The fence of a shard disagrees with the bucket map, as after a restore, so that nothing is sent there."""

    alias: str
    buckets: Sequence[int]


class EpochChanged(MapError):
    """A shard shows other buckets than the sender's map says: one is moving in this instant. It may be repeated."""

    alias: str
    epoch: int


class BucketRefused(ShardingError):
    """A shard refused to write a bucket that is not its own. The block may be repeated."""

    bucket: int
    alias: str
    state: str


class BucketMoved(BucketRefused):
    """A write was sent to a shard that has given the bucket away."""

    forward: str
    epoch: int


class BucketFenced(BucketRefused):
    """A write was sent to a shard that is about to give the bucket away, or has not got it yet."""


class RebalanceError(ShardingError):
    """A move cannot go on."""


class MoveConflict(RebalanceError):
    """The fences, the bucket map and the phase of a move contradict each other, so that nothing is done."""

    bucket: int
    phase: str
    owner: str
    source_state: str
    target_state: str


class Superseded(RebalanceError):
    """Another attempt at a move has taken over, or its bucket is not in the state that this one expects."""

    bucket: int
    alias: str
    generation: int
    found: int | None
    state: str | None


class PreflightFailed(RebalanceError):
    """Something that was found before the first move stands in the way of it."""

    findings: Sequence[Any]


class TablesDiffer(RebalanceError):
    """The tables of two shards are not alike enough for rows to go from one to the other."""

    differences: Sequence[str]


class CopyRefused(RebalanceError):
    """A shard does not take a row that another one has."""

    table: str
    alias: str
    constraint: str | None


class CopyDamaged(RebalanceError):
    """Rows are not on the shard that got them what they were on the shard that gave them."""

    table: str
    alias: str
    first: str | None
    last: str | None


class VerificationFailed(RebalanceError):
    """Two shards do not have the same rows of a bucket."""

    report: Any


class CrossShardTransaction(ShardingError):
    """One transaction wrote to several databases; all of it was rolled back."""

    aliases: Sequence[str]


class PartialCommit(ShardingError):
    """Some databases have committed their part of a write and others have not."""

    committed: Sequence[str]
    failed: Mapping[str, BaseException]
    rolled_back: Sequence[str]
    in_doubt: Sequence[str]
    compensated: bool


class CannotCompensate(ShardingError):
    """A function or an argument that another process could not call again after a crash."""

    function: str


class BlockAborted(ShardingError):
    """Somebody who found this block undecided for too long has decided that it is rolled back."""

    transaction: str


class CommitInDoubt(ShardingError):
    """The control database was lost in the instant of the decision, and cannot be asked what it was."""

    transaction: str


class InvalidCursor(ShardingError, ValueError):
    """A page cursor that this paginator did not make."""

    cursor: str


class MigrationFailed(ShardingError):
    """Some databases could not be migrated; the others were."""

    failures: Mapping[str, BaseException]


class PartialRefused(ShardingError):
    """A fan-out with on_error="partial" where a part of the answer would do harm, or could not be told apart."""

    model: str


class ShardsUnavailable(ShardingError):
    """Some shards did not answer."""

    failures: Mapping[str, BaseException]


class FanOutTimeout(ShardsUnavailable):
    """Some shards did not answer before the deadline of the fan-out."""

    timeout: float

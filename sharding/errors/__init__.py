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
├── FenceMissing                    .aliases                    the triggers that guard buckets were not made yet
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

from sharding.errors.base import (
    ShardingError,
)
from sharding.errors.cluster import (
    EpochChanged,
    FanOutTimeout,
    FenceMissing,
    MapConflict,
    MapError,
    MapMissing,
    MapOutdated,
    MigrationFailed,
    PooledConnection,
    ReferenceOutdated,
    ShardNotMigrated,
    ShardsUnavailable,
    ShardUncertified,
    UnknownShard,
)
from sharding.errors.keys import (
    BucketMismatch,
    ReferenceKeyChanged,
    ScopeConflict,
    ShardKeyChanged,
    ShardKeyMissing,
    UnhashableKey,
)
from sharding.errors.moves import (
    BucketFenced,
    BucketMoved,
    BucketRefused,
    CopyDamaged,
    CopyRefused,
    MoveConflict,
    PreflightFailed,
    RebalanceError,
    Superseded,
    TablesDiffer,
    VerificationFailed,
)
from sharding.errors.queries import (
    CannotMerge,
    CrossShardQuery,
    DeepOffset,
    GatherTooLarge,
    GlobalJoin,
    InvalidCursor,
    LookupRefused,
    NotSharded,
    PartialRefused,
    RawShardedSQL,
    ShardsDisagree,
    UnknownLookup,
    WrongShard,
)
from sharding.errors.transactions import (
    BlockAborted,
    CannotCompensate,
    CommitInDoubt,
    CrossShardTransaction,
    PartialCommit,
)

__all__ = [
    "BlockAborted",
    "BucketFenced",
    "BucketMismatch",
    "BucketMoved",
    "BucketRefused",
    "CannotCompensate",
    "CannotMerge",
    "CommitInDoubt",
    "CopyDamaged",
    "CopyRefused",
    "CrossShardQuery",
    "CrossShardTransaction",
    "DeepOffset",
    "EpochChanged",
    "FanOutTimeout",
    "FenceMissing",
    "GatherTooLarge",
    "GlobalJoin",
    "InvalidCursor",
    "LookupRefused",
    "MapConflict",
    "MapError",
    "MapMissing",
    "MapOutdated",
    "MigrationFailed",
    "MoveConflict",
    "NotSharded",
    "PartialCommit",
    "PartialRefused",
    "PooledConnection",
    "PreflightFailed",
    "RawShardedSQL",
    "RebalanceError",
    "ReferenceKeyChanged",
    "ReferenceOutdated",
    "ScopeConflict",
    "ShardKeyChanged",
    "ShardKeyMissing",
    "ShardNotMigrated",
    "ShardUncertified",
    "ShardingError",
    "ShardsDisagree",
    "ShardsUnavailable",
    "Superseded",
    "TablesDiffer",
    "UnhashableKey",
    "UnknownLookup",
    "UnknownShard",
    "VerificationFailed",
    "WrongShard",
]

"""
What a shard says when it refuses a statement because of the buckets that it has; see sharding.fence.
"""

from __future__ import annotations

import json
from typing import Any

from django.db import OperationalError

from sharding import cluster_map, errors

#: SQLSTATEs: the bucket is another shard's; it is about to be; it is not this shard's, or not yet; the shard shows
#: other buckets than the sender's map says, or hides some where the sender takes it to hide none.
MOVED, FENCED, UNKNOWN, DIFFERS = "SH001", "SH002", "SH003", "SH004"


class BucketMoved(errors.BucketMoved, OperationalError):
    """A BucketMoved that is caught as Django's error, too."""


class BucketFenced(errors.BucketFenced, OperationalError):
    """A BucketFenced that is caught as Django's error, too."""


class EpochChanged(errors.EpochChanged, OperationalError):
    """An EpochChanged that is caught as Django's error, too."""


def explained(error: BaseException, alias: str) -> errors.ShardingError | None:
    """Return what to raise instead of a database's error: None unless the database refused because of its buckets."""
    if isinstance(error, (errors.BucketRefused, errors.EpochChanged)):
        return error
    cause = error.__cause__
    state = getattr(cause, "sqlstate", None)
    if state is None or not state.startswith("SH00"):
        return None
    facts = _facts(cause)
    if state == DIFFERS:
        return _hiding(alias) if facts.get("hides") else epoch_changed(alias)
    if state == MOVED:
        return moved(facts["bucket"], alias, facts["forward"], facts["state"], facts["epoch"])
    if state in {FENCED, UNKNOWN}:
        return _fenced(alias, facts)
    return None


def moved(bucket: int, alias: str, forward: str, state: str, epoch: int) -> BucketMoved:
    """Return the error that says where a bucket has gone."""
    return BucketMoved(
        f"The bucket {bucket} has moved from {alias!r} to {forward!r}. Repeat the block; sharding.retry does so.",
        bucket=bucket,
        alias=alias,
        state=state,
        forward=forward,
        epoch=epoch,
    )


def _facts(cause: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(cause.diag.message_detail or "{}")
    return found


def epoch_changed(alias: str) -> EpochChanged:
    """Return the error that says that a shard shows other buckets than the map in memory says."""
    epoch = _known_epoch()
    return EpochChanged(
        f"The shard {alias!r} shows other buckets than the bucket map of epoch {epoch} says, since one is moving. "
        f"Repeat the block; sharding.retry does so.",
        alias=alias,
        epoch=epoch,
    )


def _hiding(alias: str) -> EpochChanged:
    return EpochChanged(
        f"The shard {alias!r} hides rows of a bucket that is moving, of which this process had not heard. Repeat the "
        f"block; sharding.retry does so.",
        alias=alias,
        epoch=_known_epoch(),
    )


def _known_epoch() -> int:
    known = cluster_map.known()
    return -1 if known is None else known.epoch


def _fenced(alias: str, facts: dict[str, Any]) -> BucketFenced:
    bucket, state = facts["bucket"], facts.get("state") or "unknown"
    if state == "unknown":
        message = (
            f"The shard {alias!r} knows nothing of the bucket {bucket}, and writes nothing of it. Repeat the block; "
            f"sharding.retry does so. If that stays so, its fence and the bucket map disagree, as they do after a "
            f"restore from a backup."
        )
    else:
        message = (
            f"The bucket {bucket} is on its way, and is {state} on {alias!r}. Repeat the block; sharding.retry does so."
        )
    return BucketFenced(message, bucket=bucket, alias=alias, state=state)

"""
Nothing is sent to a shard whose fence disagrees with the bucket map: one that was restored from a backup.

A server that was restored is reached by new sessions only, so that each session is asked once, before its first
statement: for one number, which stands for the buckets that the shard shows. If it is not the one by the map of this
process, the control database is asked, since buckets may be moving.
"""

from __future__ import annotations

import time
from typing import Any
from weakref import WeakSet

from django.core.signals import setting_changed
from django.db import DEFAULT_DB_ALIAS, Error

from sharding import cluster_map, conf
from sharding.bucket_states import FENCE, shown_by
from sharding.commits.sessions import session
from sharding.errors import ShardUncertified
from sharding.fence import agreement, states

IS_THERE = f"SELECT to_regclass('{FENCE}') IS NOT NULL"
#: Without a row in the fence, there is none yet.
SHOWN = f"SELECT shown FROM sharding_identity WHERE EXISTS (SELECT FROM {FENCE})"

_agreed: WeakSet[Any] = WeakSet()
#: Databases that have been migrated so far.
_with_fence: set[str] = set()
#: {alias: a number that was right though not by this process's map, and until when that is believed}
_explained: dict[str, tuple[int, float]] = {}


def require(connection: Any) -> None:
    """
    Check that a shard's fence agrees with the bucket map, unless that was done for this session.

    Without a fence, or with a control database that does not answer, nothing is known, and nothing is refused.

    Raises:
        ShardUncertified: it does not, and no move explains that.
    """
    raw = connection.connection
    if raw is not None and raw in _agreed:
        return
    if conf.current().fence is None or connection.vendor != "postgresql" or connection.needs_rollback:
        return
    connection.ensure_connection()
    # The driver's connection: nobody's statements are counted, logged or refused for it.
    raw = connection.connection
    with connection.wrap_database_errors:
        if connection.alias not in _with_fence:
            if not raw.execute(IS_THERE).fetchone()[0]:
                return
            _with_fence.add(connection.alias)
        row = raw.execute(SHOWN).fetchone()
    if row is not None and row[0] is not None:
        _compare(connection, row[0])
    _agreed.add(raw)


def forget() -> None:
    """Ask every session again."""
    for each in (_agreed, _with_fence, _explained):
        each.clear()


def _compare(connection: Any, shown: int) -> None:
    alias = connection.alias
    known = cluster_map.known()
    if known is None or shown == shown_by(known.buckets_of(alias)) or _is_explained(alias, shown):
        return
    with connection.wrap_database_errors:
        found = states.states(connection.connection)
    try:
        # Not that of the thread: a block may be open there.
        with session(DEFAULT_DB_ALIAS) as cursor:
            control = agreement.stored(cursor)
    except Error:
        return
    wrong = [each for each in agreement.disagreements(alias, found, control) if each.moving is None]
    if wrong:
        raise uncertified(alias, wrong)
    _explained[alias] = shown, time.monotonic() + conf.current().map_ttl


def _is_explained(alias: str, shown: int) -> bool:
    number, until = _explained.get(alias, (None, 0.0))
    return number == shown and time.monotonic() < until


def uncertified(alias: str, wrong: list[agreement.Disagreement]) -> ShardUncertified:
    buckets = [each.bucket for each in wrong]
    some = ", ".join(map(str, buckets[:5])) + (f" and {len(buckets) - 5:,} more" if len(buckets) > 5 else "")
    return ShardUncertified(
        f"The fence of {alias!r} and the bucket map disagree about {some}, as after a restore from a backup, so that "
        f"nothing was sent there. Run `manage.py shards certify {alias}`.",
        alias=alias,
        buckets=buckets,
    )


def _on_setting_changed(*, setting: str, **kwargs: Any) -> None:
    if setting in {"SHARDING", "DATABASES"}:
        forget()


setting_changed.connect(_on_setting_changed)

"""
After the migrations: give the shards the rows of reference models as the control database has them.

A data migration of the control database may have written some, and a new shard has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from django.db import DEFAULT_DB_ALIAS, connections

from sharding import reference_models, reference_sync
from sharding.control import ReferenceCopies
from sharding.direct_connection import direct_connection
from sharding.migrating.one_database import Patience
from sharding.migrating.reporting import Reporter
from sharding.reference_sync import Drift


def copy_reference_rows(shards: Sequence[str], patience: Patience, reporter: Reporter) -> dict[str, Exception]:
    """Bring each shard up to date, and return the errors of those where it failed."""
    if not shards or not reference_models.tables():
        return {}
    # In a thread of its own, whose connections are closed afterwards.
    with ThreadPoolExecutor(1, "copy") as pool:
        found = {alias: pool.submit(_copy, alias, patience, reporter).result() for alias in shards}
    return {alias: error for alias, error in found.items() if error is not None}


def _copy(alias: str, patience: Patience, reporter: Reporter) -> Exception | None:
    timeout = patience.lock_timeout
    try:
        with direct_connection(DEFAULT_DB_ALIAS, lock_timeout=timeout) as control:
            if ReferenceCopies._meta.db_table not in control.introspection.table_names():
                # The app's own migrations were not applied, or were unapplied.
                return None
            with direct_connection(alias, lock_timeout=timeout):
                for drift in reference_sync.bring_up_to_date(alias):
                    _tell(drift, reporter)
    except Exception as error:
        reporter.say(alias, "failed to take over the rows of reference models")
        return error
    finally:
        connections.close_all()
    return None


def _tell(drift: Drift, reporter: Reporter) -> None:
    written, deleted = len(drift.missing) + len(drift.differing), len(drift.surplus) - drift.wrong
    done = [f"{count} {verb}" for verb, count in (("written", written), ("deleted", deleted)) if count]
    if done:
        reporter.say(drift.alias, f"rows of {drift.model}: {', '.join(done)}")
    for label, keys in drift.referred_to.items():
        reporter.say(
            drift.alias, f"rows of {drift.model} left that {label} refers to and default does not have: {len(keys)}"
        )

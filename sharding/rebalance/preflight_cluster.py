"""
Before the first move: what the settings and the control database say, and what only the cluster as a whole can know.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from sharding import conf, reference_copies, reference_models, registry
from sharding.fence import agreement, states
from sharding.operations.display import size
from sharding.rebalance.finding import Finding, error, listed, note
from sharding.rebalance.phases import FINAL
from sharding.rebalance.preflight_tables import of_rights
from sharding.rebalance.sessions import Session

#: What a mover reads and writes in the control database.
CONTROL_TABLES = ("sharding_attempt", "sharding_bucket", "sharding_cleanup", "sharding_cluster", "sharding_move")
USED = """
    SELECT coalesce(sum(coalesce((SELECT sum(pg_total_relation_size(relid)) FROM pg_partition_tree(oid)),
                                 pg_total_relation_size(oid))), 0)::bigint
    FROM (SELECT to_regclass(quote_ident(name)) AS oid FROM unnest(%s::text[]) AS name) AS named WHERE oid IS NOT NULL
"""


def found(control: Session, buckets: Collection[int]) -> Iterator[Finding]:
    """Yield what hinders moves of some buckets, whatever their shards are."""
    yield from of_setting()
    yield from of_moves(control, buckets)
    yield from of_rights(control, CONTROL_TABLES)


def of_setting() -> Iterator[Finding]:
    if conf.current().fence is None:
        yield error(
            "fence",
            "SHARDING['FENCE'] is None, so that nothing keeps writers away from a bucket that has moved. Set it to "
            "'row' and run `manage.py migrate_all`.",
        )


def of_moves(control: Session, buckets: Collection[int]) -> Iterator[Finding]:
    rows = control.connection.execute(
        "SELECT bucket, source, target, phase FROM sharding_move WHERE bucket = ANY(%s) AND phase <> ALL(%s) "
        "ORDER BY bucket",
        [list(buckets), [str(phase) for phase in FINAL]],
    ).fetchall()
    for bucket, source, target, phase in rows:
        yield error(
            "moves",
            f"Bucket {bucket} is on its way from {source!r} to {target!r} already ({phase}). Wait until that move has "
            f"ended, and make a new plan.",
        )


def of_agreement(control: Session, session: Session) -> Iterator[Finding]:
    """Yield whether a shard's fence is of another day than the bucket map, as after a restore."""
    if conf.current().fence is None:
        return
    fence = states.states(session.connection)
    with control.connection.cursor() as cursor:
        stored = agreement.stored(cursor)
    wrong = [each for each in agreement.disagreements(session.alias, fence, stored) if each.moving is None]
    if wrong:
        yield error(
            "fence",
            f"The fence of {session.alias!r} and the bucket map disagree about the buckets "
            f"{listed([each.bucket for each in wrong])}, as after a restore from a backup. Run "
            f"`manage.py shards certify {session.alias}`.",
        )


def of_references(target: str) -> Iterator[Finding]:
    """Yield the reference tables that a target was not given, to whose rows the ones that arrive may refer."""
    missing = reference_copies.missing(target) if reference_models.tables() else []
    if missing:
        yield error(
            "references",
            f"{target!r} was not given the rows of {listed(missing)}, to which rows that move may refer. Run "
            f"`manage.py migrate_all`.",
        )


def of_space(session: Session, arriving: int | None, capacity: int | None) -> Iterator[Finding]:
    """Yield whether what arrives has room; how full a disk is, no ordinary role can see."""
    if not arriving:
        return
    if capacity is None:
        yield note(
            "space",
            f"{session.alias!r} gets {size(arriving)}, and only its operator can see whether its disk has room for "
            f"them. Look there, or say with --capacity what it can hold.",
        )
        return
    ((used,),) = session.connection.execute(USED, [sorted(registry.tables())]).fetchall()
    if used + arriving > capacity:
        yield error(
            "space",
            f"{session.alias!r} has {size(used)} of sharded rows and gets {size(arriving)}, which is more than its "
            f"capacity of {size(capacity)}. Make room, or raise the capacity.",
        )

"""
The end of an atomic block of the door: who wrote, and how they commit.

Nobody or one wrote: plain commits. Several did: two-phase commit, or one after the other where a setting allows it.
"""

from __future__ import annotations

from typing import Any

from django.db import Error
from django.db.transaction import TransactionManagementError

from sharding import cluster_map, conf
from sharding.backends import participants as databases
from sharding.backends.participants import Participant
from sharding.commits import compensating, sequential, two_phase
from sharding.commits.compensating import Compensated
from sharding.errors import CommitInDoubt, CrossShardTransaction


def commit(door: Any) -> None:
    """
    Commit the open block of ``door`` on every database that takes part in it.

    Raises:
        CrossShardTransaction: several wrote, and one cannot prepare transactions; everything is rolled back.
        PartialCommit: they committed one after the other, and not all could.
        BlockAborted, CommitInDoubt: see sharding.commits.two_phase.
        DatabaseError: a database refused to commit; everything is rolled back.
    """
    _refuse_broken(door)
    for participant in door.participants.values():
        door.run_on_commit += participant.take_callbacks()
    writers = _writers(door)
    if len(writers) <= 1:
        for alias in set(writers) & door.participants.keys():
            door.run_on_commit = door.participants[alias].keep_callbacks(door.run_on_commit)
        _commit_in_turn(door, writers)
        return
    _refuse_inner(door, writers)
    unable = _unable(door, writers)
    if unable is None:
        _commit_in_two_phases(door, writers)
    elif door.commits_one_by_one or conf.current().without_two_phase_commit == "sequential":
        _commit_in_turn(door, writers)
    else:
        door.roll_back_everything()
        raise CrossShardTransaction(
            f"This atomic block wrote to {', '.join(writers)}, and was rolled back on all of them: {unable}; or write "
            f"to one database per block; or set SHARDING['WITHOUT_TWO_PHASE_COMMIT'] to 'sequential', and they commit "
            f"one after the other.",
            aliases=writers,
        )


def _refuse_broken(door: Any) -> None:
    broken = [alias for alias, each in door.participants.items() if each.is_broken()]
    if not door.pending and databases.is_aborted(door):
        broken.append(door.alias)
    if broken:
        door.roll_back_everything()
        raise TransactionManagementError(
            f"A statement on {', '.join(broken)} failed inside this atomic block and its error was swallowed, so "
            f"the whole block was rolled back. Put such a statement into an atomic() block of its own."
        )


def _refuse_inner(door: Any, writers: list[str]) -> None:
    for alias in writers:
        if alias == door.alias or not door.participants[alias].goes_on:
            continue
        door.roll_back_everything()
        raise CrossShardTransaction(
            f"This atomic block wrote to {', '.join(writers)}, and was rolled back on all of them: {alias} is inside "
            f"an atomic block of its own, which goes on. Open transaction.atomic() around that one, or write to one "
            f"database per block.",
            aliases=writers,
        )


def _writers(door: Any) -> list[str]:
    """Return the aliases that wrote: shards, others, the control database. A single one need not be asked."""
    if door.pending and len(door.participants) == 1:
        return list(door.participants)
    shards = conf.current().shards
    writers = [alias for alias, each in door.participants.items() if each.wrote()]
    writers.sort(key=lambda alias: (alias not in shards, alias))
    return [*writers, door.alias] if door.wrote() else writers


def _unable(door: Any, writers: list[str]) -> str | None:
    """Return who cannot take part in a two-phase commit, and what can be done about it; None when all can."""
    if door.vendor != "postgresql":
        return f"{door.alias} cannot prepare transactions. Put the cluster on PostgreSQL"
    if cluster_map.uuid() is None:
        return "without a cluster id, no transaction can be prepared. Run `manage.py shards init`"
    for alias in writers:
        if alias == door.alias or door.participants[alias].can_prepare():
            continue
        if door.participants[alias].connection.vendor == "postgresql":
            return (
                f"{alias} cannot prepare transactions. Set max_prepared_transactions there to at least max_connections"
            )
        return f"{alias} cannot prepare transactions. Put it on PostgreSQL"
    return None


def _commit_in_two_phases(door: Any, writers: list[str]) -> None:
    """Commit those that only read, of which a serializable one may still fail; then the writers, all or none."""
    everyone, door.participants = door.participants, {}
    involved = [everyone.pop(alias) for alias in writers if alias != door.alias]
    cluster = cluster_map.uuid()
    assert cluster is not None
    late = [each for each in everyone.values() if each.ends_last]
    for each in late:
        del everyone[each.alias]
    try:
        _commit_readers(everyone)
    except BaseException:
        door.participants = {**everyone, **{each.alias: each for each in [*late, *involved]}}
        door.roll_back_everything()
        raise
    try:
        two_phase.commit(door, involved, door.coordinator.next_transaction(), cluster)
    except CommitInDoubt:
        door.drop_connection()
        door.run_on_commit = []
        sequential.roll_back(late)
        raise
    except BaseException:
        sequential.roll_back(late)
        raise
    finally:
        # Otherwise the end of the block would raise this connection's error, also for a block that is committed.
        if door.has_lost_connection():
            door.drop_connection()
    sequential.end_last(late)


def _commit_readers(readers: dict[str, Participant]) -> None:
    for alias in list(readers):
        readers[alias].commit()
        del readers[alias]


def _commit_in_turn(door: Any, writers: list[str]) -> None:
    """Commit the databases that only read, then those that wrote, the control database last."""
    compensations, door.compensations = door.compensations, []
    taking_part: dict[str, sequential.Part] = {**door.participants, door.alias: _ControlPart(door)}
    door.participants = {}
    partial = sequential.commit(
        [each for alias, each in taking_part.items() if alias not in writers],
        [taking_part[alias] for alias in writers],
        compensations,
        door.coordinator.next_transaction() if compensations else "",
    )
    if partial is None:
        return
    # The blocks of the compensations will commit.
    door.run_on_commit = []
    compensated = _compensated(door, partial)
    raise sequential.error_of(partial, compensated) from partial.error


def _compensated(door: Any, partial: sequential.Partial) -> Compensated | None:
    """Call the compensations of a block that stands in part; return None if it has none, or may stand whole."""
    if partial.log is None or not partial.is_certain:
        return None
    done = Compensated()
    try:
        # The block is over, and those of the compensations are not nested in it.
        door.set_autocommit(True)
    except Error as error:
        done.waiting[partial.log.block] = f"{door.alias} does not answer ({type(error).__name__})"
        return done
    compensating.compensate(partial.log, partial.committed, done)
    return done


class _ControlPart:
    """The control database's own part of the block."""

    def __init__(self, door: Any) -> None:
        self.alias = door.alias
        self.connection = door
        self.ends_last = door.ends_last

    def commit(self) -> None:
        try:
            self.connection.commit_own_part()
        except BaseException:
            self.roll_back()
            raise

    def roll_back(self) -> None:
        self.connection.roll_back_own_part()

"""
How far a move has come, and what is wanted of it: the values of `phase` and `wanted` in a move's row.
"""

from __future__ import annotations

from enum import StrEnum


class Phase(StrEnum):
    """
    What a move is about to do, or is doing; all before it is done. Only the attempt at work writes it.

    Up to FINISHING the bucket is the source's; from DECIDED on it is the target's, and there is no way but forward.
    """

    #: Nothing has been done.
    PLANNED = "planned"
    #: The target gets a row in its fence, and loses what rows of the bucket it may have.
    PREPARING = "preparing"
    #: The source begins to note what is written.
    CAPTURING = "capturing"
    #: Rows go over, chunk by chunk.
    COPYING = "copying"
    #: What was noted meanwhile goes over.
    CATCHING_UP = "catching_up"
    #: The rows of both are compared, while the application writes.
    VERIFYING = "verifying"
    #: The source is closed to writes.
    FENCING = "fencing"
    #: The last that was noted goes over and is compared; then comes the decision.
    FINISHING = "finishing"
    #: The bucket map says that the bucket is the target's. The target opens.
    DECIDED = "decided"
    #: The target has the bucket. The source lets go of it.
    OWNING = "owning"
    #: The source sends everybody on.
    FORWARDING = "forwarding"
    #: The move can be taken back.
    WINDOW = "window"
    #: The source's rows are deleted.
    PURGING = "purging"
    DONE = "done"
    #: The source opens again, and what the target was given is deleted.
    ABORTING = "aborting"
    ABORTED = "aborted"


class Wanted(StrEnum):
    """What the operator wants of a move."""

    GO = "go"
    PAUSE = "pause"
    #: Before the decision; ignored after it.
    ABORT = "abort"
    #: After the decision, until the purge begins; before it, the same as ABORT.
    ROLLBACK = "rollback"


#: Phases after which nothing happens any more.
FINAL = frozenset({Phase.DONE, Phase.ABORTED})
#: Phases in which the decision has not been made, and a move can be aborted.
UNDECIDED = (
    Phase.PLANNED,
    Phase.PREPARING,
    Phase.CAPTURING,
    Phase.COPYING,
    Phase.CATCHING_UP,
    Phase.VERIFYING,
    Phase.FENCING,
    Phase.FINISHING,
)

"""
Let several movers work until all that is due is done, and stop them where each may rest.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from django.db import DEFAULT_DB_ALIAS

from sharding import conf
from sharding.rebalance.mover import Mover
from sharding.rebalance.options import Options
from sharding.rebalance.phases import Phase
from sharding.rebalance.sessions import Session, open_session

#: Seconds between two looks at what is due, the shortest and the longest.
SOON, LATE = 0.2, 5.0

_LEFT = """
SELECT phase, wanted, planned, announced, window_ends, retry_at, now() FROM sharding_move
WHERE phase NOT IN ('done', 'aborted') AND (%s::uuid IS NULL OR plan = %s::uuid)
"""


@dataclass(slots=True)
class Run:
    """Movers at work, each in a thread of its own."""

    options: Options
    plan: UUID | None = None
    jobs: int = 2
    #: Whether to wait until the last window is over and the source's rows are deleted.
    to_the_end: bool = False
    #: Called about twice a second, to show how far it has come; and with an error of a mover that goes on.
    look: Callable[[], None] = lambda: None
    _stopped: threading.Event = field(default_factory=threading.Event)

    def stop(self) -> None:
        """Let each mover stop as soon as its move may rest."""
        self._stopped.set()

    @property
    def is_stopped(self) -> bool:
        return self._stopped.is_set()

    def run(self) -> None:
        """
        Work until nothing is due any more, or stop() was called.

        Raises:
            RebalanceError: a migration is running.
            psycopg.OperationalError: the control database does not answer.
        """
        with ThreadPoolExecutor(self.jobs, "mover") as pool, _stopping(self._stopped):
            while not self._stopped.is_set():
                self._work(pool)
                with open_session(DEFAULT_DB_ALIAS) as control:
                    pause = self._pause(control)
                if pause is None or self._stopped.wait(pause):
                    return
                self.look()

    def _work(self, pool: ThreadPoolExecutor) -> None:
        options = replace(self.options, stop=self._stopped.is_set)
        running: set[Future[int]] = {pool.submit(Mover(options, self.plan).run) for _ in range(self.jobs)}
        while running:
            done, running = wait(running, timeout=0.5, return_when=FIRST_EXCEPTION)
            for each in done:
                each.result()
            self.look()

    def _pause(self, control: Session) -> float | None:
        """Return how long to wait for what is to be done next, None for nothing that one should wait for."""
        rows = control.connection.execute(_LEFT, [self.plan, self.plan]).fetchall()
        moments = [moment for row in rows if (moment := self._due(*row)) is not None]
        if not moments:
            return None
        return min(LATE, max(SOON, min(moments).total_seconds()))

    def _due(
        self,
        phase: str,
        wanted: str,
        planned: datetime,
        announced: datetime | None,
        window_ends: datetime | None,
        retry_at: datetime | None,
        now: datetime,
    ) -> timedelta | None:
        """Return in what time something is due, None for a move that rests."""
        if wanted == "pause" and phase not in _UNPAUSED:
            return None
        ttl = timedelta(seconds=conf.current().map_ttl)
        due = [retry_at or now]
        if phase == Phase.PLANNED:
            due.append(planned + ttl)
        if phase == Phase.WINDOW:
            if wanted != "rollback" and not self.to_the_end:
                return None
            due.append((announced or now) + ttl)
            if wanted != "rollback" and window_ends is not None:
                due.append(window_ends)
        return max(due) - now


#: Phases that go on although the move is to pause.
_UNPAUSED = frozenset({Phase.FENCING, Phase.FINISHING, Phase.DECIDED, Phase.OWNING, Phase.FORWARDING, Phase.ABORTING})


@contextmanager
def _stopping(stopped: threading.Event) -> Iterator[None]:
    """Stop the movers when the main thread is interrupted or fails: the pool waits for them."""
    try:
        yield
    except BaseException:
        stopped.set()
        raise


def end_windows(control: Session, plan: UUID | None = None) -> int:
    """Let moves in their window be over as soon as no old map is in use; return how many."""
    found: Any = control.connection.execute(
        "UPDATE sharding_move SET window_ends = now() WHERE id IN (SELECT id FROM sharding_move "
        "WHERE phase = 'window' AND wanted <> 'rollback' AND window_ends > now() "
        "AND (%s::uuid IS NULL OR plan = %s::uuid) ORDER BY id FOR UPDATE)",
        [plan, plan],
    )
    return int(found.rowcount)

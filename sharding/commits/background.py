"""
What every process of an application does for recovery: finish what an earlier one left, and look after statements that
wait. Two threads, begun with the first connection to a shard.
"""

from __future__ import annotations

import logging
import os
import threading
import time

from django.db import Error, connections

from sharding import conf
from sharding.commits import recovery, waiting
from sharding.errors import ShardingError

logger = logging.getLogger("sharding")

#: Seconds between two looks at the running statements.
INTERVAL = 1.0

#: False in a process that makes and drops databases, such as a test run.
allowed = True
_begun = False


def begin() -> None:
    """Begin in this process, unless it has begun or RECOVER_IN_PROCESS says otherwise."""
    global _begun
    if _begun or not allowed or not conf.current().recover_in_process:
        return
    recovery.finish_later()
    try:
        threading.Thread(target=_watch, name="shardkit-waiting", daemon=True).start()
    except RuntimeError as error:
        # Too many threads, or the end of the process. The next connection begins it.
        logger.warning("Statements that wait are not looked after (%s).", error)
        return
    _begun = True


def _watch() -> None:
    while True:
        time.sleep(INTERVAL)
        for alias in waiting.overdue(time.monotonic()):
            try:
                waiting.look(alias)
            except (Error, ShardingError) as error:
                logger.info("%s could not be looked at for transactions in doubt (%s).", alias, type(error).__name__)
            finally:
                # Those of this thread.
                connections.close_all()


def _not_begun() -> None:
    global _begun
    _begun = False


# Threads stay with the parent.
os.register_at_fork(after_in_child=_not_begun)

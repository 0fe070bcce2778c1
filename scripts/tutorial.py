"""
Follow docs/tutorial.md literally, in an empty folder, and compare what happens with what it says.

    python scripts/tutorial.py            prints each step, and how long it all took; 1 at the first difference
    python scripts/tutorial.py --keep     leaves the folder there, to look at

Two things are not literal: ``pip install django-shardkit`` installs this checkout, and the addresses in ``.env`` are
those of PostgreSQL servers that are started for it, and stopped again.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

# Run as a file, this module has its own folder on the path and not the checkout.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from scripts.cluster import Cluster
from scripts.tutorial_page import Command, File, Session, Step, difference, steps

ROOT = Path(__file__).resolve().parent.parent
PAGE = Path(os.path.relpath(ROOT / "docs" / "tutorial.md"))
DISTRIBUTION = "django-shardkit"
#: What a distribution is built from, so that nothing is written into the checkout.
SOURCES = ("pyproject.toml", "README.md", "LICENSE", "sharding", "aggregator")
#: What of the caller's environment a reader would not have.
FOREIGN = ("PYTHON", "DJANGO", "VIRTUAL_ENV", "DATABASE_URL", "SHARD_URL", "COVERAGE", "COV_")
#: Runs a session inside the interpreter of ``manage.py shell``, with the names that this has imported.
SESSION = """
import doctest
_test = doctest.DocTestParser().get_doctest({text!r}, globals(), "docs/tutorial.md", "docs/tutorial.md", {line})
doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(_test, clear_globs=False)
"""


class Difference(Exception):
    """A step that did not go as the tutorial says."""


class Reader:
    """Somebody who follows the tutorial: a shell, and a folder to write files in."""

    def __init__(self, home: Path, shell: Shell, servers: Cluster) -> None:
        self._home = home
        self._shell = shell
        self._servers = servers

    def follow(self, step: Step) -> None:
        """
        Do one step.

        Raises:
            Difference: the output is another one, or a command failed.
        """
        match step:
            case File():
                self._write(step)
            case Command():
                self._run(step)
            case Session():
                self._type(step)

    def _write(self, file: File) -> None:
        path = self._shell.folder() / file.path
        text = self._addresses() if path.name == ".env" else file.text
        if file.append:
            text = path.read_text() + text
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def _addresses(self) -> str:
        self._servers.up(shards=2, fast=True)
        return "".join(f"{variable}={url}\n" for variable, url in self._servers.env().items())

    def _run(self, command: Command) -> None:
        installs = command.command.startswith("pip install")
        text = command.command.replace(DISTRIBUTION, str(_sources(self._home))) if installs else command.command
        status, output = self._shell.run(text)
        wrong = difference(command.output, output)
        if status:
            raise Difference(f"The command ended with {status}:\n{output}")
        if wrong:
            raise Difference(wrong)

    def _type(self, session: Session) -> None:
        script = self._home / "session.py"
        script.write_text(SESSION.format(text=session.text, line=session.line - 1))
        status, output = self._shell.run(f"python manage.py shell --verbosity 0 < {script}")
        if status or output.strip():
            raise Difference(output)


class Shell:
    """A bash that keeps its folder and its environment between commands."""

    def __init__(self, folder: Path) -> None:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        # Tables are as wide as the terminal, and the tutorial's are made for this one.
        environment |= {"COLUMNS": "100", "TERM": "dumb", "NO_COLOR": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        self._bash = subprocess.Popen(
            ["bash", "--noprofile", "--norc"],
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, command: str) -> tuple[int, str]:
        """Run a command; return its exit status, and what it printed on both channels."""
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        end = f"end-{uuid.uuid4()}"
        self._bash.stdin.write(f"{{ {command}\n}} </dev/null\nprintf '\\n%s %s\\n' {end} $?\n")
        self._bash.stdin.flush()
        output = ""
        for line in self._bash.stdout:
            if line.startswith(end):
                return int(line.split()[1]), output.removesuffix("\n")
            output += line
        raise Difference(f"The shell ended:\n{output}")

    def folder(self) -> Path:
        """Return the folder the shell is in."""
        return Path(self.run("pwd")[1].strip())

    def close(self) -> None:
        """End the shell."""
        self._bash.communicate("exit\n")


def main(arguments: list[str] | None = None) -> int:
    """Follow the tutorial and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("page", nargs="?", type=Path, default=PAGE, help="another page to follow")
    parser.add_argument("--keep", action="store_true", help="leave the folder there, and print its path")
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    todo = steps(options.page.read_text(encoding="utf-8"))
    with _reader(keep=options.keep) as reader:
        for step in todo:
            print(f"{time.monotonic() - begun:6.1f} s  {_title(step)}", flush=True)
            try:
                reader.follow(step)
            except Difference as error:
                print(f"\n{options.page}:{step.line}: {_title(step)}\n\n{error}")
                return 1
    print(f"\nThe tutorial works: {len(todo)} steps in {time.monotonic() - begun:.0f} s.")
    return 0


@contextmanager
def _reader(*, keep: bool) -> Iterator[Reader]:
    with ExitStack() as stack:
        home = Path(tempfile.mkdtemp(prefix="tutorial-"))
        if keep:
            stack.callback(print, f"Look into {home}")
        else:
            stack.callback(shutil.rmtree, home)
        servers = Cluster(home / "servers")
        stack.callback(_stop, servers)
        desk = home / "desk"
        desk.mkdir()
        shell = Shell(desk)
        stack.callback(shell.close)
        yield Reader(home, shell, servers)


def _stop(servers: Cluster) -> None:
    # They are started by the page about PostgreSQL, which may not have been reached.
    if servers.folder.exists():
        servers.destroy()


def _sources(home: Path) -> Path:
    """Return a copy of what the distribution is built from."""
    copy = home / "django-shardkit"
    if not copy.exists():
        copy.mkdir()
        for name in SOURCES:
            source = ROOT / name
            ignored = shutil.ignore_patterns("__pycache__")
            if source.is_dir():
                shutil.copytree(source, copy / name, ignore=ignored)
            else:
                shutil.copy(source, copy / name)
    return copy


def _title(step: Step) -> str:
    match step:
        case File():
            return f"{'append to' if step.append else 'write'} {step.path}"
        case Command():
            return f"$ {step.command}"
        case Session():
            return f">>> {step.text.count('>>> ')} statements in manage.py shell"


if __name__ == "__main__":
    sys.exit(main())

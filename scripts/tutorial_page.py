"""
Read the tutorial: what it tells the reader to write and to run, in order.

* A ``{code-block}`` whose caption is a path is a file to write; with ``(at the end)`` after it, lines to append.
* In a ``console`` block, ``$`` begins a command; the lines up to the next one are its output. ``...`` is anything.
* A ``pycon`` block is a session of ``manage.py shell``.
* A ``text`` block is only looked at. Nothing else may occur, so that no code escapes.
"""

from __future__ import annotations

import difflib
import doctest
import re
from collections.abc import Iterator
from dataclasses import dataclass

APPEND = " (at the end)"
_FENCE = re.compile(r"^```(?P<info>[^`\n]+)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
_CAPTION = re.compile(r"\A:caption: (?P<caption>.+)\n+")


class PageError(Exception):
    """A block that nobody could follow literally."""


@dataclass(frozen=True)
class File:
    """A file to write, or lines to append to one."""

    line: int
    path: str
    text: str
    append: bool


@dataclass(frozen=True)
class Command:
    """A command to run, and the output to expect."""

    line: int
    command: str
    output: str


@dataclass(frozen=True)
class Session:
    """Lines to type at ``manage.py shell``, with the answers, as doctest reads them."""

    line: int
    text: str


Step = File | Command | Session


def steps(page: str) -> list[Step]:
    """
    Return what a page tells the reader to do, in order.

    Raises:
        PageError: a block is of another kind, or a file has no caption.
    """
    found: list[Step] = []
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start()) + 1
        found.extend(_steps_of(match["info"].strip(), match["body"], line))
    return found


def difference(expected: str, actual: str) -> str | None:
    """Return a readable diff, or None when the output is as expected. ``...`` in it stands for anything."""
    want, got = _plain(expected), _plain(actual)
    if _agree(want, got):
        return None
    found = got.splitlines()
    # A line with a wildcard is shown as the one it stands for, so that only what is wrong stands out.
    asked = [next((it for it in found if line != "..." and _agree(line, it)), line) for line in want.splitlines()]
    return "\n".join(difflib.unified_diff(asked, found, "the tutorial says", "it is", lineterm="", n=99))


def _steps_of(info: str, body: str, line: int) -> Iterator[Step]:
    if info == "console":
        yield from _commands(body, line + 1)
    elif info == "pycon":
        yield Session(line + 1, body)
    elif info.startswith("{code-block}"):
        yield _file(body, line)
    elif info != "text":
        raise PageError(f"Line {line} opens a {info!r} block, and nobody knows where its text goes. Give it a caption.")


def _file(body: str, line: int) -> File:
    caption = _CAPTION.match(body)
    if caption is None:
        raise PageError(f"Line {line} opens a code-block without a caption that says which file it is.")
    path = caption["caption"]
    return File(line, path.removesuffix(APPEND), body[caption.end() :], append=path.endswith(APPEND))


def _commands(body: str, line: int) -> Iterator[Command]:
    begun: tuple[int, str] | None = None
    output: list[str] = []
    for number, text in enumerate(body.splitlines(), start=line):
        if text.startswith("$ "):
            if begun is not None:
                yield Command(*begun, "\n".join(output))
            begun, output = (number, text[2:]), []
        elif begun is None:
            raise PageError(f"Line {number} is output, but no command came before it.")
        else:
            output.append(text)
    if begun is not None:
        yield Command(*begun, "\n".join(output))


def _agree(want: str, got: str) -> bool:
    return doctest.OutputChecker().check_output(want, got, doctest.ELLIPSIS)


def _plain(output: str) -> str:
    """Return the output without what nobody can see: spaces at the ends of lines, empty lines at its end."""
    return "\n".join(line.rstrip() for line in output.strip("\n").splitlines()).rstrip() + "\n"

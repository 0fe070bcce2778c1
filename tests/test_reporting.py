"""The console of the commands: terminals, files, and encodings that have no bars."""

from __future__ import annotations

import io

import pytest
from django.core.management.base import OutputWrapper

from sharding.migrating.reporting import console_on


@pytest.mark.parametrize(
    ("encoding", "expected"), [("utf-8", "━ 3 of 3\nü\n"), ("latin-1", "? 3 of 3\nü\n"), ("ascii", "? 3 of 3\n?\n")]
)
def test_what_an_encoding_does_not_have_ends_no_command(encoding, expected):
    file = io.BytesIO()
    stream = io.TextIOWrapper(file, encoding)
    console_on(OutputWrapper(stream)).print("━ 3 of 3   \nü")
    stream.flush()
    assert file.getvalue().decode(encoding) == expected
